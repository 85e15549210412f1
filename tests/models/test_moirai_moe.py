"""Moirai-MoE: upstream's loop, routing to experts, entries of layers that go, and the graph's experts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file
from uni2ts.model.moirai_moe import MoiraiMoEForecast, MoiraiMoEModule
from uni2ts.module.ffn import MoEFeedForward

from tests.tiny import few_samples, write_moirai_moe
from tests.upstream import upstream_moirai_moe
from tsprune import ablate, prune
from tsprune.errors import TspruneError
from tsprune.hooks.capture import Point, recording
from tsprune.models import Forecaster, load
from tsprune.models.moirai_moe import MoiraiMoE
from tsprune.models.moirai_moe_graph import AllExperts

CENTROIDS = "encoder.centroid"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("moirai-moe")
    write_moirai_moe(path)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> Forecaster:
    return few_samples(load(str(folder), device="cpu"))


def walks(rows: int, *lengths: int) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(rows)
    return [(rng.standard_normal((rows, n)).cumsum(1) + 9).astype(np.float32) for n in lengths]


def test_past_covariates_are_read_as_upstream_reads_them(folder: Path, model: Forecaster) -> None:
    rows = walks(5, 60, 45)
    rows[0][1, 5:9] = rows[1][4, -3:] = np.nan
    given = [{"target": x[:2], "past_covariates": x[2:]} for x in rows]
    for horizon in (5, 21):
        expected = upstream_moirai_moe(folder, covariates=3)(rows, horizon)
        np.testing.assert_array_equal(model.forecast(given, horizon).quantiles, expected)


def test_more_padding_in_front_is_not_seen(folder: Path, model: Forecaster) -> None:
    """Upstream's predictor pads every series to its context length."""
    series = [x[0] for x in walks(1, 33, 20)]
    expected = upstream_moirai_moe(folder, history=64)(series, 21)
    found = model.forecast(series, 21).quantiles
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def test_settings_are_upstreams(folder: Path) -> None:
    found = load(str(folder), device="cpu")
    assert isinstance(found, MoiraiMoE)
    usual = MoiraiMoEForecast(1, 1, 0, 0, 64, module=found.module)
    assert (found.samples, found.context_length) == (usual.hparams.num_samples, 64)
    # of the sizes that the network has, the nearest one to upstream's 16
    assert (usual.hparams.patch_size, found.patch, found.module.patch_sizes) == (16, 8, [8, 32])


def test_an_object_of_upstreams_forecasts_as_the_folder_does(folder: Path, model: Forecaster) -> None:
    module = MoiraiMoEModule.from_pretrained(folder)
    series = [x[0] for x in walks(1, 64, 40)]
    expected = model.forecast(series, 13).quantiles
    for upstream in (module, MoiraiMoEForecast(1, 1, 0, 0, 64, module=module)):
        found = few_samples(load(upstream))
        np.testing.assert_array_equal(found.forecast(series, 13).quantiles, expected)
        assert found.config_file() == json.loads((folder / "config.json").read_text())


def test_a_series_that_is_lost_is_the_only_one(model: Forecaster) -> None:
    """NaN inside the network stays in its path, though experts compute tokens of all paths together."""
    series = [x[0] for x in walks(1, 64, 64)]
    expected = model.forecast(series, 21).quantiles[:1]
    first = model.module.get_submodule("encoder.layers.0")

    def spoil(_module: object, _args: object, output: torch.Tensor) -> torch.Tensor:
        spoilt = output.clone()
        if len(output) == 2:  # the first pass; later ones run paths
            spoilt[1, 7] = torch.nan
        return spoilt

    handle = first.register_forward_hook(spoil)
    try:
        with pytest.raises(TspruneError, match="not finite for series 1") as caught:
            model.forecast(series, 21)
    finally:
        handle.remove()
    found = caught.value.forecast.quantiles[:1]  # type: ignore[attr-defined]
    # sums of an expert are rounded otherwise where it has other tokens
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("target", ["os.system", None])
def test_distributions_only_are_built(target: str | None, folder: Path, tmp_path: Path) -> None:
    write_moirai_moe(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["distr_output"] = {"_target_": target}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(TspruneError, match="unknown distribution"):
        load(str(tmp_path), device="cpu")


def test_the_anatomy_names_all_experts(model: Forecaster) -> None:
    for component in model.anatomy.components("mlp"):
        site = model.anatomy.mlp(component)
        inside = model.module.get_submodule(site.output)
        assert isinstance(inside, MoEFeedForward)
        assert [model.module.get_submodule(path) for path in site.experts] == list(inside.experts)
    assert "mlp (32 experts)" in repr(model.anatomy)


def test_ablating_an_mlp_is_zeroing_the_experts_that_its_tokens_choose(model: Forecaster) -> None:
    """And of one token, the others do not matter."""
    mlp, context = model.anatomy.mlp(model.anatomy.components("mlp")[0]), [x[0] for x in walks(1, 8)]
    experts = [model.module.get_submodule(path) for path in mlp.experts]
    chosen: set[int] = set()
    handles = [
        expert.register_forward_hook(lambda _m, args, _o, n=n: chosen.add(n) if len(args[0]) else None)
        for n, expert in enumerate(experts)
    ]
    clean = model.teacher_forced(context)
    for handle in handles:
        handle.remove()
    assert 2 <= len(chosen) <= 4  # of the patch of the context and that of the horizon
    with ablate(model, "stack.0.mlp"):
        ablated = model.teacher_forced(context)
    for numbers, expected in ((chosen, ablated), (set(range(32)) - chosen, clean)):
        kept = [experts[number].fc2.weight for number in numbers]  # type: ignore[union-attr]
        before = [weight.detach().clone() for weight in kept]  # type: ignore[union-attr]
        with torch.no_grad():
            for weight in kept:
                weight.zero_()  # type: ignore[union-attr, operator]
            found = model.teacher_forced(context)
            for weight, values in zip(kept, before, strict=True):
                weight.copy_(values)  # type: ignore[union-attr, operator]
        assert torch.equal(found, expected)


def test_centroids_of_a_layer_go_with_it(folder: Path, model: Forecaster, tmp_path: Path) -> None:
    """In the type that they are stored in, so that upstream reads the file."""
    prune(model, "stack.0").save(tmp_path / "pruned")
    before, after = (
        load_file(path / "model.safetensors")[CENTROIDS] for path in (folder, tmp_path / "pruned")
    )
    assert before.dtype == after.dtype == torch.float64
    assert torch.equal(after, before[1:].float().double())
    with safe_open(tmp_path / "pruned" / "model.safetensors", "pt") as file:
        assert not [name for name in file.keys() if "layers.1" in name]  # noqa: SIM118
    assert len(MoiraiMoEModule.from_pretrained(tmp_path / "pruned").encoder.layers) == 1
    headless = prune(model, ["stack.0.self", "stack.1.mlp"])
    assert len(headless.module.get_buffer(CENTROIDS)) == 2


@pytest.mark.parametrize("width", [1, 39, 40, 120, 2048])
def test_all_experts_of_a_graph_are_those_that_are_chosen(model: Forecaster, width: int) -> None:
    """One expert at a time, several that do not divide their number, or all; equal to rounding."""
    ffn = model.module.get_submodule("encoder.layers.1.ffn")
    centroid = model.module.get_buffer(CENTROIDS)[1]
    graph = AllExperts(ffn, width)
    assert len(graph.groups) == -(-32 // max(1, width // 40))
    x = torch.randn(5, 9, 128, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected, found = ffn(x, centroid=centroid), graph(x, centroid)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_paths_are_rows_of_one_batch(model: Forecaster) -> None:
    """So that what is recorded at a point is [rows, positions, features] in every pass."""
    point = Point("encoder.layers.1.ffn", "output")
    with recording(model.module, [point]) as recorded:
        model.forecast([x[0] for x in walks(1, 64, 40)], 21)
    # 8 patches of history and 3 ahead; 2 windows, then 6 paths of each
    assert [tuple(x.shape) for x in recorded[point]] == [(2, 11, 128), (12, 11, 128), (12, 11, 128)]
