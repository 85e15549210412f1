"""TimesFM 2.5: its anatomy, its size read off the weights, and what padding may not change."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from timesfm import TimesFM_2p5_200M_torch
from timesfm.timesfm_2p5.timesfm_2p5_base import TimesFM_2p5_200M_Definition

from pretrain.families.timesfm import Size, definition
from tests.tiny import TIMESFM, ragged, write_timesfm
from tests.upstream import upstream_timesfm
from tsprune.errors import TspruneError
from tsprune.models import Forecaster, load
from tsprune.models.timesfm import definition_of


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("timesfm")
    write_timesfm(path)
    return path


@pytest.fixture(scope="module")
def model(directory: Path) -> Forecaster:
    return load(str(directory), device="cpu")


def test_the_size_is_read_off_the_weights(directory: Path) -> None:
    shapes = {n: tuple(t.shape) for n, t in load_file(directory / "model.safetensors").items()}
    assert definition_of(shapes) == definition(Size(**TIMESFM))


def test_the_size_of_the_published_model() -> None:
    """From the shapes its published checkpoint has; upstream states the sizes in a class."""
    published = TimesFM_2p5_200M_Definition()

    def residual(name: str, inputs: int, hidden: int, outputs: int) -> dict[str, tuple[int, ...]]:
        return {
            f"{name}.hidden_layer.weight": (hidden, inputs),
            f"{name}.output_layer.weight": (outputs, hidden),
            f"{name}.residual_layer.weight": (outputs, inputs),
        }

    shapes: dict[str, tuple[int, ...]] = {
        **residual("tokenizer", 64, 1280, 1280),
        **residual("output_projection_point", 1280, 1280, 1280),
        **residual("output_projection_quantiles", 1280, 1280, 10240),
    }
    for layer in range(20):
        shapes[f"stacked_xf.{layer}.attn.qkv_proj.weight"] = (3840, 1280)
        shapes[f"stacked_xf.{layer}.attn.query_ln.scale"] = (80,)
        shapes[f"stacked_xf.{layer}.ff0.weight"] = (1280, 1280)
    assert definition_of(shapes) == published


def test_paths_are_upstreams(model: Forecaster) -> None:
    (stack,) = model.anatomy.stacks
    assert stack.name == "stack"
    assert len(stack.blocks) == TIMESFM["layers"]
    for index, block in enumerate(stack.blocks):
        (site,) = block.attention
        upstream = model.module.stacked_xf[index]
        assert model.module.get_submodule(block.module) is upstream
        assert model.module.get_submodule(block.mlp.output) is upstream.ff1
        assert model.module.get_submodule(site.module) is upstream.attn
        assert model.module.get_submodule(site.output) is upstream.attn.out
        assert (site.role, site.heads, site.head_dim) == ("self", TIMESFM["heads"], 8)
        parts = [site.query, site.key, site.value]
        assert {model.module.get_submodule(part.module) for part in parts} == {upstream.attn.qkv_proj}
        assert [part.start // part.width for part in parts] == [0, 1, 2]
        names = dict(model.module.named_parameters())
        assert all(factor.parameter in names for factor in site.factors)


def test_values_are_the_third_part_of_the_fused_layer(model: Forecaster) -> None:
    """With one position attention is 1, so what reaches the output projection are the values."""
    site = model.anatomy.stacks[0].blocks[1].attention[0]
    attention = model.module.get_submodule(site.module)
    weight = attention.qkv_proj.weight.detach()
    x = torch.randn(4, 1, TIMESFM["width"], generator=torch.Generator().manual_seed(0))
    seen = []
    handle = attention.out.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    attention(x)
    handle.remove()
    for head in range(site.heads):
        by_hand = x[:, 0] @ weight[list(site.value.rows(head))].T
        torch.testing.assert_close(seen[0][:, 0, site.columns(head)], by_hand)


def test_padding_to_the_longest_is_padding_to_the_whole_context(model: Forecaster, directory: Path) -> None:
    """Users compile with one max_context; padding less is a matter of time, not of results."""
    contexts = [x[-70:] for x in ragged(model, 4)]
    whole = upstream_timesfm(directory, max_context=TIMESFM["context"])(contexts, 20)
    np.testing.assert_allclose(
        model.forecast(contexts, 20).quantiles, whole, rtol=1e-4, atol=1e-4 * np.abs(whole).max()
    )


def test_forecasts_of_nonnegative_series_are_nonnegative_and_quantiles_ordered(model: Forecaster) -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.3, (4, 100)).astype(np.float32)
    quantiles = model.forecast(list(counts), 150).quantiles
    assert (quantiles >= 0).all()
    assert (np.diff(quantiles, axis=1) >= 0).all()


def test_flipping_the_series_flips_the_forecast(model: Forecaster) -> None:
    rng = np.random.default_rng(0)
    contexts = [rng.standard_normal(n).astype(np.float32) for n in (90, 200)]  # of both signs
    up = model.forecast(contexts, 20).quantiles
    down = model.forecast([-x for x in contexts], 20).quantiles
    np.testing.assert_allclose(down, -up[:, ::-1], rtol=1e-4, atol=1e-3)


def test_teacher_forced_holds_both_signs_of_the_series(model: Forecaster) -> None:
    contexts = [x[-64:] - 30 for x in ragged(model, 2)]
    output = model.teacher_forced(contexts)
    assert output.shape == (2, 2, 2, 1280)
    flipped = model.teacher_forced([-x for x in contexts])
    torch.testing.assert_close(flipped, output.flip(1), rtol=1e-3, atol=1e-4)


def test_upstream_is_the_wrapper(model: Forecaster) -> None:
    assert isinstance(model.upstream, TimesFM_2p5_200M_torch)
    assert model.upstream.model is model.module


def test_beyond_the_context_limit(model: Forecaster) -> None:
    with pytest.raises(TspruneError, match="limit of 16384"):
        model.forecast([[1.0, 2.0]], 16_384)


def test_config_json_states_the_size(model: Forecaster, tmp_path: Path) -> None:
    model.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config == {
        "architecture": "timesfm-2.5",
        "max_context": TIMESFM["context"],
        "definition": dataclasses.asdict(definition(Size(**TIMESFM))),
    }
