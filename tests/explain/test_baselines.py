"""Copying forecasters: exact on what repeats, by hand on what does not, and evaluated like a model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tsprune
from tests.suites import small_suite
from tsprune import explain
from tsprune.errors import TspruneError
from tsprune.explain.baselines import followers, motif_distances, weighted_quantiles


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 9), st.integers(0, 10_000), st.integers(1, 40))
def test_what_repeats_exactly_is_forecast_exactly(period: int, seed: int, horizon: int) -> None:
    profile = np.random.default_rng(seed).permutation(period).astype(float)  # all steps unlike
    series = np.tile(profile, 2 + 30 // period + horizon // period + 2)
    context, future = series[: -(horizon + period)], series[-(horizon + period) :][:horizon]
    for forecaster in (explain.Parrot(), explain.NadarayaWatson(bandwidth=1e-3)):
        forecast = forecaster.forecast([context], horizon)
        np.testing.assert_allclose(forecast.median[0], future, atol=1e-6)


def test_the_nearest_motif_is_copied() -> None:
    """Last motif (1, 2); (1, 2) was followed by 7, 5: the copy runs into the end and repeats itself."""
    forecast = explain.Parrot(2).forecast([[9, 1, 2, 7, 5, 1, 2]], 6)
    assert forecast.median[0].tolist() == [7, 5, 1, 2, 7, 5]
    np.testing.assert_array_equal(motif_distances(np.array([0.0, 3, 1, 3]), 2), [0.5, 4])
    assert followers(np.arange(4.0), np.array([2, 3]), 3).tolist() == [[2, 3, 2], [3, 3, 3]]


def test_a_wide_kernel_weighs_all_motifs_alike() -> None:
    forecast = explain.NadarayaWatson(1, bandwidth=1e6).forecast([[1, 2, 3, 4, 5]], 1)
    assert forecast.quantiles[0, :, 0].tolist() == [2, 2, 3, 3, 3, 4, 4, 5, 5]


def test_weighted_quantiles_by_hand() -> None:
    values = np.array([[3.0], [1.0], [2.0]])
    assert weighted_quantiles(values, np.array([0.2, 0.5, 0.3]))[:, 0].tolist() == [1] * 5 + [2] * 3 + [3]


def test_short_flat_and_gappy_histories() -> None:
    for forecaster in (explain.Parrot(), explain.NadarayaWatson()):
        forecast = forecaster.forecast([[4.0], [2.0, 2.0, 2.0], [np.nan, 1.0, np.nan, 3.0]], 5)
        assert forecast.quantiles.shape == (3, 9, 5)
        assert np.isfinite(forecast.quantiles).all()
        assert (forecast.quantiles[0] == 4).all()
        assert (forecast.quantiles[1] == 2).all()


def test_they_are_evaluated_like_a_model() -> None:
    frame = tsprune.evaluate(explain.Parrot(4), small_suite())
    assert frame["configuration"].tolist() == ["first/D/short", "second/D/short"]
    assert np.isfinite(frame[["MASE", "CRPS"]]).all(axis=None)
    assert frame.title == "parrot (motif of 4) on small"


def test_senseless_settings_are_refused() -> None:
    with pytest.raises(TspruneError, match="motif"):
        explain.Parrot(0)
    with pytest.raises(TspruneError, match="bandwidth"):
        explain.NadarayaWatson(bandwidth=0)
