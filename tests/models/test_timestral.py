"""Timestral: upstream's settings, covariates, gates, and configs of pruned models."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from timestral import TimestralConfig, TimestralForecaster, TimestralModel

from tests.tiny import write_timestral
from tests.upstream import LEVELS, upstream_timestral
from tsprune import prune
from tsprune.errors import TspruneError
from tsprune.models import Forecaster, load
from tsprune.models.forecast import NotFiniteError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("timestral")
    write_timestral(path)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> Forecaster:
    return load(str(folder), device="cpu")


def contexts() -> list[NDArray[np.float32]]:
    """Series that upstream clips and leaves alone; some as long, one with gaps."""
    rng = np.random.default_rng(0)
    walk = rng.standard_normal(60).cumsum()
    late = walk.copy()
    late[[*range(21), 33, 34]] = np.nan
    series = [walk, np.abs(walk) + 0.5, rng.poisson(0.3, 41), late, np.zeros(30)]
    return [np.asarray(values, dtype=np.float32) for values in series]


def test_forecasts_of_several_passes_are_upstreams(model: Forecaster, folder: Path) -> None:
    upstream = upstream_timestral(folder)
    for horizon in (3, 40):
        found = model.forecast(contexts(), horizon).quantiles
        np.testing.assert_array_equal(found, upstream(contexts(), horizon))
    assert (found[[1, 2, 4]] >= 0).all()
    assert (found[0] < 0).any()


def test_past_covariates_are_upstreams(model: Forecaster, folder: Path) -> None:
    target, past = np.stack(contexts()[:2]), contexts()[3][None]
    found = model.forecast([{"target": target, "past_covariates": past}], 20).quantiles
    forecaster = TimestralForecaster.from_pretrained(folder)
    given = forecaster.forecast(target[None], 20, past_covariates=past[None])
    expected = np.stack([given.quantile(level).numpy()[0] for level in LEVELS], axis=1)
    np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(found, model.forecast([target], 20).quantiles)


def test_a_series_without_a_forecast_leaves_the_others_theirs(model: Forecaster) -> None:
    """Upstream raises an error for the whole batch."""
    good, overflowing = contexts()[0], np.tile(np.float32([3e38, -3e38]), 30)
    with pytest.raises(NotFiniteError, match="series 1") as caught:
        model.forecast([good, overflowing], 3)
    assert caught.value.forecast is not None
    alone = model.forecast([good], 3).quantiles[0]
    np.testing.assert_allclose(caught.value.forecast.quantiles[0], alone, rtol=1e-5, atol=1e-5)


def test_a_gate_is_cut_with_its_head(model: Forecaster) -> None:
    """Rows of the gate follow the columns of the output projection: head after head."""
    pruned = prune(model, "stack.0.time.head.1")
    before, after = (m.module.get_submodule("transformer.layers.0.attns.0") for m in (model, pruned))
    kept = [*range(8), *range(16, 24)]
    torch.testing.assert_close(after._gate.weight, before._gate.weight[kept], rtol=0, atol=0)
    torch.testing.assert_close(after.wO.weight, before.wO.weight[:, kept], rtol=0, atol=0)
    interleaved = [row for row in range(72) if row % 3 != 1]
    torch.testing.assert_close(after.wQKV.weight, before.wQKV.weight[interleaved], rtol=0, atol=0)


def test_attention_without_gates(folder: Path) -> None:
    config = TimestralConfig.load(folder / "config.json")
    plain = dataclasses.replace(config, time_attn_gate="none", variate_attn_gate="none", attn_bias=True)
    model = load(TimestralModel(plain))
    assert all(site.gate is None for _, site in model.anatomy.sites())
    small = prune(model, ["stack.0.time.head.1", "stack.1.variate"])
    assert np.isfinite(small.forecast(contexts(), 20).quantiles).all()


def test_upstream_reads_whole_layers_gone(model: Forecaster, tmp_path: Path) -> None:
    small = prune(model, "stack.0")
    small.save(tmp_path / "small")
    assert json.loads((tmp_path / "small" / "config.json").read_text())["block_schedule"] == ["variate_time"]
    found = small.forecast(contexts(), 20).quantiles
    np.testing.assert_array_equal(found, upstream_timestral(tmp_path / "small")(contexts(), 20))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("quantile_knots", [0.1, 0.5, 0.9]),
        ("quantile_knots", [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]),
        ("block_schedule", ["time", "space"]),
        ("time_attn_gate", "relu"),
        ("num_heads", 5),
        ("patch_size", 0),
        ("context_length", -4),
    ],
)
def test_impossible_configs_are_refused(folder: Path, tmp_path: Path, key: str, value: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {key: value}))
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(TspruneError, match=r"config\.json"):
        load(str(tmp_path), device="cpu")
