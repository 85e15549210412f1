"""Law 1: a forecast through tsprune is the upstream pipeline's, exactly."""

from __future__ import annotations

import numpy as np
import torch

from tests.tiny import full_length, ragged
from tsprune.models import Forecaster, bundled_names


def test_the_bundled_checkpoints_are_there() -> None:
    """Without them the laws below would hold for random weights only."""
    assert {"timesfm", "chronos-bolt", "chronos-t5", "toto", "moirai"} <= set(bundled_names())


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
