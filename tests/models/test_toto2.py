"""Toto 2.0: upstream's settings for benchmarks, grouped queries, unit scaling, configs of pruned models."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from toto2 import Toto2GluonTSModel, Toto2GluonTSModelConfig, Toto2Model

from tests.tiny import double_precision, write_toto2
from tests.upstream import upstream_toto2
from tsprune import ablate, prune
from tsprune.anatomy import Anatomy
from tsprune.errors import TspruneError
from tsprune.explain.attribution.contributions import contributions
from tsprune.hooks.mixing import mixes
from tsprune.models import Forecaster, load
from tsprune.scores import stable_ranks
from tsprune.testing.rank_checks import stable_ranks_are_of_what_the_model_computes
from tsprune.testing.subject import Subject


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("toto2")
    write_toto2(path)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> Forecaster:
    return load(str(folder), device="cpu")


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two queries share a key and a value; no norm acts on them, and the first layer is over variates."""
    path = tmp_path_factory.mktemp("grouped")
    write_toto2(
        path, num_heads=4, num_groups=2, qk_norm=False, variate_layer_first=True, norm_include_weight=True
    )
    return path


def contexts() -> list[NDArray[np.float32]]:
    """Long, short, with gaps in the first, in a later and in the last patch, constant."""
    rng = np.random.default_rng(0)
    walk = rng.standard_normal(90).cumsum()
    gaps = walk[:60].copy()
    gaps[[0, 1, 2, 30, 31, -1, -3]] = np.nan
    series = [walk, walk[:5], gaps, np.zeros(30), 1e6 + walk[:33]]
    return [values.astype(np.float32) for values in series]


@pytest.mark.parametrize("horizon", [3, 8, 20, 64])
def test_forecasts_are_those_of_upstreams_predictor(model: Forecaster, folder: Path, horizon: int) -> None:
    found = model.forecast(contexts(), horizon).quantiles
    np.testing.assert_array_equal(found, upstream_toto2(folder)(contexts(), horizon))


def test_a_horizon_that_leaves_no_context_is_refused(model: Forecaster) -> None:
    with pytest.raises(TspruneError, match="at most 64 steps"):
        model.forecast(contexts(), 65)


def test_past_covariates_are_upstreams(model: Forecaster, folder: Path) -> None:
    rng = np.random.default_rng(1)
    target, past = (rng.standard_normal((n, 50)).cumsum(1).astype(np.float32) for n in (2, 1))
    target[0, [4, -2]] = past[0, [7, -1]] = np.nan
    config = Toto2GluonTSModelConfig(11, 64, 2, past_feat_dynamic_real_dim=1)
    predictor = Toto2GluonTSModel(Toto2Model.from_pretrained(folder), config).create_predictor(1, "cpu")
    entry = {"target": target, "past_feat_dynamic_real": past, "start": pd.Period("2020-01-01", "h")}
    (expected,) = predictor.predict([entry])
    found = model.forecast([{"target": target, "past_covariates": past}], 11).quantiles
    np.testing.assert_array_equal(found, expected.forecast_array.transpose(1, 0, 2))


def test_the_readout_of_unlike_groups_is_the_forecast(model: Forecaster) -> None:
    several = [np.stack([contexts()[0][:40]] * 2), contexts()[1], contexts()[2]]
    found = model.readout(several, 11)
    expected = model.forecast(several, 11).quantiles
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_gradients_of_weights_are_derivatives(model: Forecaster) -> None:
    """Upstream's own backward pass scales them by constants of its own."""
    for name in ("patch_proj.linear1.weight", "transformer.layers.1.attn.out_proj.weight"):
        weight = model.module.get_parameter(name)
        (gradient,) = torch.autograd.grad(model.readout(contexts()[:1], 5).mean(), weight)
        direction = gradient / gradient.norm()
        sides = []
        with double_precision(model), torch.no_grad():
            for step in (1e-3, -2e-3):
                model.module.get_parameter(name).add_(step * direction)
                sides.append(float(model.forecast(contexts()[:1], 5).quantiles.astype(np.float64).mean()))
            model.module.get_parameter(name).add_(1e-3 * direction)
        assert (sides[0] - sides[1]) / 2e-3 == pytest.approx(float(gradient.norm()), rel=0.02)


def test_zero_leaves_the_factor_of_the_stream(model: Forecaster) -> None:
    """The last layer's stream is the embedding times all factors when every layer is ablated."""
    (stack,) = model.anatomy.stacks
    with ablate(model, "stack.*"):
        found = contributions(model, contexts()[:1])
    factor = float(torch.stack([mix.kept for mix in mixes(model, stack).values()]).prod())
    with torch.no_grad():
        recorded: list[torch.Tensor] = []
        hook = model.module.transformer.register_forward_pre_hook(lambda _m, args: recorded.append(args[0]))
        model.teacher_forced(contexts()[:1])
        hook.remove()
    np.testing.assert_allclose(found.stream[0], factor * recorded[0][0, 0, -2], rtol=1e-5)
    whole = contributions(model, contexts()[:2])
    np.testing.assert_allclose(whole.writes.sum(1), whole.stream, rtol=1e-4, atol=1e-5)
    taus = [
        float(model.module.transformer.layers[0].attn_tau),
        float(model.module.transformer.layers[0].mlp_tau),
    ]
    first = [mix for component, mix in mixes(model, stack).items() if component.layer == 0]
    np.testing.assert_allclose([mix.written / mix.kept for mix in first], taus, rtol=1e-6)


def test_grouped_queries(grouped: Path) -> None:
    model, series = load(str(grouped), device="cpu"), contexts()[:3]
    np.testing.assert_array_equal(model.forecast(series, 9).quantiles, upstream_toto2(grouped)(series, 9))
    site = model.anatomy.site(model.anatomy.components("attention")[0])
    assert [site.query.start, site.key.start, site.value.start] == [0, 32, 48]
    assert [site.query.width, site.key.width, site.value.width] == [32, 16, 12]
    plans = ["stack.*.*.head.[13]"], ["stack.1.time.head.[01]", "stack.2.variate.head.[02]"]
    for plan in plans:
        with ablate(model, plan):
            expected = model.forecast(series, 9).quantiles
        small = prune(model, plan)
        np.testing.assert_allclose(small.forecast(series, 9).quantiles, expected, rtol=1e-3, atol=1e-3)
        assert len(stable_ranks(small)) == len(small.anatomy.components("head"))
    with pytest.raises(TspruneError, match="share keys and values"):
        prune(model, "stack.0.variate.head.0")


def test_the_probe_finds_the_heads_of_grouped_queries(grouped: Path) -> None:
    def attend(model: Forecaster, site: object, tokens: torch.Tensor) -> None:
        model.module.get_submodule(site.module)(tokens)  # type: ignore[attr-defined]

    model = load(str(grouped), device="cpu")
    subject = Subject(model, 8, None, attend)  # type: ignore[arg-type]
    stable_ranks_are_of_what_the_model_computes(subject)
    model.anatomy = interleaved(model.anatomy)
    with pytest.raises(AssertionError, match="stable_rank"):
        stable_ranks_are_of_what_the_model_computes(subject)


def interleaved(anatomy: Anatomy) -> Anatomy:
    """The same with rows in the order (dimension, head), as Toto 1.0 has them."""
    (stack,) = anatomy.stacks
    blocks = []
    for block in stack.blocks:
        (site,) = block.attention
        parts = {name: getattr(site, name) for name in ("query", "key", "value")}
        mixed = {name: dataclasses.replace(part, interleaved=True) for name, part in parts.items()}
        blocks.append(dataclasses.replace(block, attention=(dataclasses.replace(site, **mixed),)))
    return dataclasses.replace(anatomy, stacks=(dataclasses.replace(stack, blocks=tuple(blocks)),))


def test_upstream_reads_equal_heads(model: Forecaster, tmp_path: Path) -> None:
    small = prune(model, "stack.*.*.head.1")
    small.save(tmp_path / "small")
    stated = json.loads((tmp_path / "small" / "config.json").read_text())
    assert (stated["num_heads"], stated["num_groups"], stated["qk_dim"], stated["v_dim"]) == (2, 2, 8, 6)
    expected = upstream_toto2(tmp_path / "small")(contexts(), 20)
    np.testing.assert_array_equal(small.forecast(contexts(), 20).quantiles, expected)
    for plan in ("stack.3", "stack.0.time.head.0"):
        assert prune(model, plan).upstream_config(model.config_file()) is None


def test_objects_in_memory_keep_their_context(folder: Path) -> None:
    network = Toto2Model.from_pretrained(folder)
    predictor = Toto2GluonTSModel(network, Toto2GluonTSModelConfig(5, 64, 1))
    model = load(predictor)
    assert model.module is network
    assert (model.context_length, load(network).context_length) == (64, 4096)
    series = contexts()[:2]
    np.testing.assert_array_equal(model.forecast(series, 5).quantiles, upstream_toto2(folder)(series, 5))
