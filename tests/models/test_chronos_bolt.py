"""Chronos-Bolt: its anatomy, and what is particular to its pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from chronos import BaseChronosPipeline
from chronos.chronos_bolt import ChronosBoltPipeline
from torch import nn

from tests.tiny import BOLT, BOLT_DECODER_LAYERS, BOLT_HEAD_DIM, pristine, ragged, write_bolt
from tsprune.models import Forecaster, load


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Forecaster:
    directory = tmp_path_factory.mktemp("bolt")
    write_bolt(directory)
    return load(str(directory), device="cpu")


@pytest.fixture
def model(loaded: Forecaster) -> Forecaster:
    return loaded


def test_anatomy_has_both_stacks_at_their_own_depth(model: Forecaster) -> None:
    encoder, decoder = model.anatomy.stacks
    assert [len(encoder.blocks), len(decoder.blocks)] == [BOLT["layers"], BOLT_DECODER_LAYERS]
    assert {tuple(s.role for s in block.attention) for block in encoder.blocks} == {("self",)}
    assert {tuple(s.role for s in block.attention) for block in decoder.blocks} == {("self", "cross")}
    assert model.anatomy.d_model == BOLT["width"]
    heads = BOLT["layers"] * BOLT["heads"] + BOLT_DECODER_LAYERS * BOLT["heads"] * 2
    assert len(model.anatomy.components("head")) == heads


def test_paths_are_those_of_t5(model: Forecaster) -> None:
    cross = model.anatomy.stack("decoder").blocks[1].attention[1]
    attention = model.module.decoder.block[1].layer[1].EncDecAttention
    assert model.module.get_submodule(cross.module) is attention
    assert model.module.get_submodule(cross.output) is attention.o
    assert model.module.get_submodule(cross.query.module) is attention.q
    assert model.module.get_submodule(cross.key.module) is attention.k
    assert model.module.get_submodule(cross.value.module) is attention.v
    assert (cross.heads, cross.head_dim) == (BOLT["heads"], BOLT_HEAD_DIM)
    for stack, position in (("encoder", 1), ("decoder", 2)):
        for index, block in enumerate(model.anatomy.stack(stack).blocks):
            upstream = getattr(model.module, stack).block[index]
            assert model.module.get_submodule(block.module) is upstream
            assert model.module.get_submodule(block.mlp.output) is upstream.layer[position].DenseReluDense


def test_every_attention_module_is_in_the_anatomy(model: Forecaster) -> None:
    upstream = {n for n, part in model.module.named_modules() if type(part).__name__ == "T5Attention"}
    assert {model.anatomy.site(c).module for c in model.anatomy.components("attention")} == upstream


def test_upstream_is_the_pipeline(model: Forecaster) -> None:
    assert isinstance(model.upstream, ChronosBoltPipeline)
    assert model.upstream.model is model.module
    assert model.context_length == BOLT["contexts"][-1] == 48
    assert not any(part.training for part in model.module.modules() if isinstance(part, nn.Module))


def test_long_horizons_do_not_warn(model: Forecaster) -> None:
    """Warnings are errors in this suite; upstream warns at every batch beyond one patch."""
    with pristine(model):
        assert model.forecast(ragged(model, 2), 3 * BOLT["horizon"]).quantiles.shape == (2, 9, 24)


def test_teacher_forced_is_the_normalised_forecast(model: Forecaster) -> None:
    """Scaled back by hand (mean and deviation of the observed context), it is the forecast."""
    rng = np.random.default_rng(0)
    series = rng.normal(5, 3, (3, BOLT["contexts"][-1])).astype(np.float32)
    series[1, ::4] = np.nan
    forecast = model.forecast(list(series), BOLT["horizon"]).quantiles
    normalised = model.teacher_forced(list(series)).detach().numpy().reshape(3, 9, BOLT["horizon"])
    mean, deviation = np.nanmean(series, 1), np.nanstd(series, 1)
    by_hand = normalised * deviation[:, None, None] + mean[:, None, None]
    np.testing.assert_allclose(forecast, by_hand, rtol=1e-4, atol=1e-4)


def test_saved_models_are_found_by_upstreams_own_dispatch(model: Forecaster, tmp_path: Path) -> None:
    model.save(tmp_path)
    pipeline = BaseChronosPipeline.from_pretrained(tmp_path)
    assert isinstance(pipeline, ChronosBoltPipeline)
    context = torch.arange(30.0)
    expected = model.forecast([context.numpy()], 8).quantiles
    # weights of a file lie elsewhere in memory: without AVX512, products round by where their factors lie
    found = pipeline.predict([context], 8).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    assert not list(tmp_path.glob("*.bin"))
