"""The graphs of models that draw paths, run by torch: their distributions and their paths are the model's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from toto.model import scaler as scalers

from tests.exporting import GONE
from tests.tiny import TINY
from tsprune.models import FAMILIES, SamplingForecaster, load
from tsprune.models.sampled_paths import PathSampling
from tsprune.pruning import prune

EXACTNESS = 1e-5  # of the largest value: the same sums in float32, in another order
Series = list[NDArray[np.float32]]


def awkward(length: int) -> Series:
    """Ragged series: plain; with gaps inside, in front, at the end; constant; large; a single value."""
    rng = np.random.default_rng(0)
    series = [(rng.normal(size=length - 3 * i).cumsum() + 5).astype(np.float32) for i in range(6)]
    series[1][length // 3 : length // 2] = np.nan
    series[2][:9] = np.nan
    series[3][-3:] = np.nan
    series[4][:] = 7
    series[5] *= 1e5
    return [*series, series[0][:1]]


def runner(module: torch.nn.Module | None) -> Callable[..., list[NDArray[Any]]]:
    def run(*arrays: NDArray[Any]) -> list[NDArray[Any]]:
        assert module is not None
        with torch.no_grad():
            return [x.numpy() for x in module(*(torch.from_numpy(np.ascontiguousarray(x)) for x in arrays))]

    return run


@pytest.fixture(scope="module", params=["toto", "moirai", "moirai-moe"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SamplingForecaster:
    path: Path = tmp_path_factory.mktemp(request.param) / "model"
    TINY[f"tiny-{request.param}"](path)
    found = load(path, device="cpu", samples=6)
    assert isinstance(found, SamplingForecaster)
    return found


def graph_and_sampling(model: SamplingForecaster, horizon: int | None) -> tuple[Any, PathSampling]:
    with torch.no_grad():
        graph = resolve_name(FAMILIES[model.family].graph)(model, horizon).eval()
    return graph, graph.sampling


def require_same(model: SamplingForecaster, horizon: int) -> None:
    graph, sampling = graph_and_sampling(model, horizon)
    for length in (40, model.context_length + 30):
        series = awkward(length)
        expected = model.forecast(series, horizon).samples
        assert expected is not None
        kept = [x[-model.context_length :] for x in series]
        found = sampling.paths(kept, horizon, runner(graph), runner(graph.step))
        sizes = np.abs(expected).max(axis=(1, 2), keepdims=True)
        assert (np.abs(found - expected) <= EXACTNESS * sizes).all()


@pytest.mark.parametrize("horizon", [3, 8, 21])
def test_paths_are_the_models(model: SamplingForecaster, horizon: int) -> None:
    """Within a patch, a whole one, and more than two."""
    require_same(model, horizon)


def test_paths_of_a_pruned_model_with_uneven_heads(model: SamplingForecaster) -> None:
    pruned = prune(model, GONE[model.family])
    assert isinstance(pruned, SamplingForecaster)
    require_same(pruned, 21)


def test_a_model_without_attention(model: SamplingForecaster) -> None:
    pruned = prune(model, [f"stack.*.{role}" for role in FAMILIES[model.family].attention])
    assert isinstance(pruned, SamplingForecaster)
    require_same(pruned, 21)


def test_distributions_of_a_step_are_the_models(model: SamplingForecaster) -> None:
    """To 1e-4 of the value; `_teacher_forced` has them as the model computes them, in other layouts."""
    series = awkward(40)
    graph, sampling = graph_and_sampling(model, None)
    found: dict[str, NDArray[Any]] = {}

    def kept(*arrays: NDArray[Any]) -> list[NDArray[Any]]:
        outputs = runner(graph)(*arrays)
        found["weights"], found["parameters"] = outputs[:2]
        return outputs

    for one in series:
        expected = model._teacher_forced([one])[0].numpy(force=True)
        sampling.paths([one], sampling_patch(sampling), kept, runner(None))
        weights, parameters = found["weights"][0], found["parameters"][0]
        if model.family == "toto":
            expected = expected.transpose(0, 2, 1)  # [patch, 4, K]
            weights_there, rest = (
                expected[:, 0],
                expected[:, 1:].transpose(0, 2, 1).reshape(len(expected), -1),
            )
        else:
            logits, rest = expected[:, : weights.shape[-1]], expected[:, weights.shape[-1] :]
            weights_there = torch.from_numpy(logits).softmax(-1).numpy()
        np.testing.assert_allclose(weights, weights_there, rtol=1e-4)
        np.testing.assert_allclose(parameters, rest, rtol=1e-4, atol=1e-6)


def sampling_patch(sampling: Any) -> int:
    return int(sampling.patch)


@pytest.fixture
def scaled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SamplingForecaster:
    """A Toto with another scaler."""
    path: Path = tmp_path_factory.mktemp("scaled") / "model"
    TINY["tiny-toto"](path)
    found = load(path, device="cpu", samples=3)
    assert isinstance(found, SamplingForecaster)
    found.module.scaler = request.param
    return found


@pytest.mark.parametrize(
    "scaled",
    [
        scalers.StdMeanScaler(),
        scalers.CausalStdMeanScaler(use_bessel_correction=False),
        scalers.CausalPatchStdMeanScaler(
            patch_size=8, stabilize_with_global=True, scale_factor_exponent=0.05
        ),
    ],
    indirect=True,
    ids=["history", "step", "bounded"],
)
def test_every_scaler_of_toto(scaled: SamplingForecaster) -> None:
    require_same(scaled, 21)


def test_what_upstream_does_not_keep_is_not_finite() -> None:
    """Toto replaces draws beyond half of float32's range by 0; the path is lost."""
    from tsprune.models.sampled_patches import PatchSampling

    sampling = PatchSampling(
        samples=4, seed=0, steps=2, patch=2, components=("student_t",), scaler="history", least_variance=0.1,
        unbiased=False, bounded=False, exponent=0.0, heads=1, head_dim=1,
    )  # fmt: skip

    def encode(patches: NDArray[Any]) -> list[NDArray[Any]]:
        parameters = np.array([[[3.0, 0.0, 1.0], [3.0, 3e38, 1.0]]], np.float32)
        return [np.ones((1, 2, 1), np.float32), parameters, np.zeros((1, 1, 1, 1)), np.zeros((1, 1, 1, 1))]

    context = [np.array([1.0, 2.0], np.float32)]
    assert np.isfinite(sampling.paths(context, 1, encode, encode)).all()
    assert np.isnan(sampling.paths(context, 2, encode, encode)).all()
