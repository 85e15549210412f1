"""Means and intervals over series."""

from __future__ import annotations

import numpy as np
import pytest

from tsprune.explain.intervals import column_intervals, mean_interval, series_means


def test_series_count_once() -> None:
    means = series_means([[1.0, np.nan], [3.0, np.nan], [10.0, 4.0]], [7, 7, 9])
    np.testing.assert_array_equal(means, [[2, np.nan], [10, 4]])


def test_interval_is_that_of_a_normal_mean() -> None:
    """Percentile bootstrap of 400 normal values: mean +- 1.96 s / sqrt(n)."""
    values = np.random.default_rng(0).standard_normal(400)
    found = mean_interval(values)
    half = 1.96 * values.std() / 20
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.015)
    assert found.high == pytest.approx(values.mean() + half, abs=0.015)
    mean, low, high = column_intervals(np.stack([values, np.full(400, np.nan)], 1))
    assert (mean[0], low[0], high[0]) == pytest.approx((found.mean, found.low, found.high), abs=1e-9)
    assert np.isnan([mean[1], low[1], high[1]]).all()


def test_nothing_has_no_interval() -> None:
    assert np.isnan(mean_interval([np.nan]).mean)
    assert mean_interval([2.0]) == mean_interval([2.0, np.nan])
