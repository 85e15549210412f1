"""Law 1: a forecast through tsprune is the upstream pipeline's, exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny import double_precision, full_length, output_patch, ragged
from tests.upstream import TOLERANCE, UPSTREAM
from tsprune.models import Forecaster, bundled_names


def test_the_bundled_checkpoints_are_there() -> None:
    """Without them the laws below would hold for random weights only."""
    assert {"timesfm", "chronos-bolt", "chronos-t5", "toto", "moirai"} <= set(bundled_names())


@pytest.mark.parametrize("beyond", [False, True], ids=["one patch", "autoregressive"])
def test_forecast_is_the_upstream_pipelines(model: Forecaster, directory: Path, beyond: bool) -> None:
    horizon = output_patch(model) + 5 if beyond else output_patch(model) - 3
    contexts = ragged(model, 3 if beyond else 6)

    forecast = model.forecast(contexts, horizon)

    assert forecast.quantiles.dtype == np.float32
    assert forecast.quantiles.shape == (len(contexts), len(forecast.levels), horizon)
    expected = UPSTREAM[model.family](directory)(contexts, horizon)
    tolerance = TOLERANCE.get(model.family, 0) * np.abs(expected).max()
    np.testing.assert_allclose(forecast.quantiles, expected, rtol=0, atol=tolerance)


def test_forecast_is_finite_and_repeatable(model: Forecaster) -> None:
    contexts = ragged(model)
    kept = [x.copy() for x in contexts]

    first, second = (model.forecast(contexts, 4).quantiles for _ in range(2))

    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, second)
    for context, before in zip(contexts, kept, strict=True):
        np.testing.assert_array_equal(context, before)  # upstream edits arrays and lists in place


def test_a_series_is_forecast_alike_in_any_company(model: Forecaster) -> None:
    """In float64: in float32 a sampled path may jump where a rounding error meets the edge of a draw."""
    contexts = ragged(model)
    order = [3, 0, 5, 2, 4, 1]
    with double_precision(model):
        together = model.forecast(contexts, 6).quantiles
        shuffled = model.forecast([contexts[i] for i in order], 6).quantiles
        alone = np.concatenate([model.forecast([context], 6).quantiles for context in contexts])
    tolerance = 1e-6 * np.abs(together).max()
    np.testing.assert_allclose(shuffled, together[order], rtol=0, atol=tolerance)
    np.testing.assert_allclose(alone, together, rtol=0, atol=tolerance)


def test_history_beyond_the_context_length_is_ignored(model: Forecaster) -> None:
    (context,) = full_length(model, 1)
    longer = np.concatenate([np.full(37, 1e4, dtype=np.float32), context])
    np.testing.assert_array_equal(
        model.forecast([longer], 5).quantiles, model.forecast([context], 5).quantiles
    )


def test_median_is_the_middle_quantile(model: Forecaster) -> None:
    forecast = model.forecast(ragged(model, 2), 5)
    np.testing.assert_array_equal(forecast.median, forecast.quantiles[:, 4])
    assert forecast.levels == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def test_contexts_may_be_lists_and_integers(model: Forecaster) -> None:
    lists = model.forecast([[1, 2, 3, 4] * 5, range(9)], 3).quantiles
    arrays = model.forecast([np.tile(np.arange(1.0, 5), 5), np.arange(9)], 3).quantiles
    np.testing.assert_array_equal(lists, arrays)


def test_teacher_forced_has_one_row_a_series(model: Forecaster) -> None:
    contexts = full_length(model, 3)
    output = model.teacher_forced(contexts)
    assert len(output) == 3
    assert torch.isfinite(output).all()
    other = model.teacher_forced([*contexts[:2], full_length(model, 1, seed=9)[0]])
    torch.testing.assert_close(other[:2], output[:2])
    assert not torch.allclose(other[2], output[2])
