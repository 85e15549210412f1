"""TimesFM 3: upstream's evaluator, many variates, covariates, and configs of pruned models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from timesfm3.torch import TimesFM3Evaluator, TimesFM3Forecaster

from tests.tiny import write_timesfm3
from tests.upstream import upstream_timesfm3
from tsprune import prune
from tsprune.anatomy import Component
from tsprune.errors import TspruneError
from tsprune.hooks.capture import point_of, recording
from tsprune.models import Forecaster, load


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("timesfm3")
    write_timesfm3(path, apart=False)  # crossing quantiles are sorted
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> Forecaster:
    return load(str(folder), device="cpu")


def contexts() -> list[NDArray[np.float32]]:
    """Series that upstream detrends, clips and leaves alone; one with gaps, two as long."""
    rng = np.random.default_rng(0)
    walk = rng.standard_normal(60).cumsum()
    late = walk.copy()
    late[[*range(21), 33, 34]] = np.nan
    series = [walk, np.abs(walk) + 0.5, 5 * np.arange(41) + rng.random(41), late, np.zeros(30)]
    return [np.asarray(values, dtype=np.float32) for values in series]


@pytest.mark.parametrize("horizon", [3, 40])
def test_forecasts_are_upstreams(model: Forecaster, folder: Path, horizon: int) -> None:
    found = model.forecast(contexts(), horizon).quantiles
    expected = upstream_timesfm3(folder)(contexts(), horizon)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    assert (found[[1, 2, 4]] >= 0).all()
    assert (found[0] < 0).any()


def test_gradients_of_a_history_shorter_than_a_patch_are_finite(model: Forecaster) -> None:
    """Upstream's deviations are 0 there, and the derivative of their root infinite."""
    history = np.arange(17.0) % 5
    found = model.readout([history, np.full(40, 3.0)], 5)
    np.testing.assert_array_equal(found.detach(), model.forecast([history, np.full(40, 3.0)], 5).quantiles)
    gradients = torch.autograd.grad(found.sum(), [*model.module.parameters()], allow_unused=True)
    assert all(torch.isfinite(one).all() for one in gradients if one is not None)


def test_more_variates_than_a_pass_takes_are_read_in_groups(model: Forecaster, folder: Path) -> None:
    many = np.stack([np.roll(contexts()[0], shift) for shift in range(40)])
    found = model.forecast([many], 5).quantiles
    expected = upstream_timesfm3(folder)([many], 5)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_past_covariates_are_upstreams(model: Forecaster, folder: Path) -> None:
    target, past = np.stack(contexts()[:2]), contexts()[3][None]
    found = model.forecast([{"target": target, "past_covariates": past}], 20).quantiles
    evaluator = TimesFM3Evaluator(checkpoint_path=str(folder), device="cpu")
    (given,) = evaluator.predict_batch([target], 20, past_only_covariates=[past])
    expected = given.quantiles.swapaxes(1, 2)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    assert not np.allclose(found, model.forecast([target], 20).quantiles)
    with pytest.raises(TspruneError, match="at most 31 past covariates"):
        model.forecast([{"target": target, "past_covariates": np.tile(past, (32, 1))}], 20)


def test_attention_over_variates_is_recorded_by_series(model: Forecaster) -> None:
    """Upstream's projections see [windows * steps, variates, features] there."""
    point = point_of(model.anatomy, Component("stack", 1, "variate"))
    series = [np.stack(contexts()[:2]), np.stack([contexts()[3], contexts()[0]])]
    raw: list[torch.Tensor] = []
    output = model.module.get_submodule(point.path)
    hook = output.register_forward_hook(lambda _m, _i, x: raw.append(x))
    with recording(model.module, [point]) as recorded:
        model.teacher_forced(series)
    hook.remove()
    (by_series, _), (folded, _) = recorded[point], raw  # of the series and their negatives
    assert by_series.shape == (4, 10, 24)  # 8 patches of history and 2 of the future
    for window in range(2):
        for variate in range(2):
            rows = folded[window * 10 : window * 10 + 10, variate]
            torch.testing.assert_close(by_series[2 * window + variate], rows, rtol=0, atol=0)


def test_the_pipeline_forecasts_what_the_forecaster_does(model: Forecaster) -> None:
    assert isinstance(model.upstream, TimesFM3Forecaster)
    (given,) = model.upstream.predict_batch([contexts()[0]], 5)
    expected = model.forecast([contexts()[0]], 5).quantiles[0]
    np.testing.assert_allclose(given.quantiles.T, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    adopted = load(model.upstream)
    np.testing.assert_array_equal(adopted.forecast([contexts()[0]], 5).quantiles[0], expected)


def test_upstream_reads_whole_layers_gone_and_refuses_the_rest(model: Forecaster, tmp_path: Path) -> None:
    """Its loader would fill in missing weights at random."""
    small = prune(model, "stack.0")
    small.save(tmp_path / "small")
    found, expected = small.forecast(contexts(), 9).quantiles, upstream_timesfm3(tmp_path / "small")
    np.testing.assert_allclose(found, expected(contexts(), 9), rtol=1e-5, atol=1e-5)
    prune(model, "stack.0.variate").save(tmp_path / "uneven")
    with pytest.raises(TypeError):
        TimesFM3Evaluator(checkpoint_path=str(tmp_path / "uneven"), device="cpu")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("quantiles", [0.1, 0.5, 0.9]),
        ("transformer_config", {"num_layers": 2, "transformer": {"model_dims": -24}}),
        ("transformer_config", "large"),
        ("output_patch_len", 12),
    ],
)
def test_impossible_configs_are_refused(folder: Path, tmp_path: Path, key: str, value: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {key: value}))
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(TspruneError, match=r"config\.json"):
        load(str(tmp_path), device="cpu")
