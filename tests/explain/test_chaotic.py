"""Forecasters that copy, by hand and beside models; a planted copying head carries their parroting."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tsprune
from tests.suites import ORBITS, configuration, small_suite, tiny
from tsprune import explain
from tsprune.data import Suite, chaos
from tsprune.errors import TspruneError
from tsprune.explain import chaotic_mechanism, chaotic_traits, forecast_traits, head_effects, mechanism_table
from tsprune.explain.chaotic import MEASURES, Parrot, followers, motif_distances, weighted_quantiles


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


def test_copying_is_right_where_the_system_returns() -> None:
    model = tiny("tiny-timesfm")
    table = chaotic_traits(model, ORBITS).set_index(["forecaster", "measure"])
    copier = "parrot (motif of 10)"
    for measure in MEASURES:
        row = table.loc[copier, measure]
        assert abs(row["mean"]) < 1e-3
        own = table.loc[model.name, measure]
        assert row["difference"] == pytest.approx(row["mean"] - own["mean"], abs=1e-9)
        assert row["difference_low"] <= row["difference"] <= row["difference_high"]
        assert np.isnan(own["difference"])
    assert table.loc[model.name, "error"]["mean"] > 0.1
    assert len(table) == 3 * len(MEASURES)


def test_a_system_is_one_observation_whatever_the_order() -> None:
    model = tiny("tiny-timesfm")
    table = chaotic_traits(model, ORBITS).set_index(["forecaster", "measure"])
    by_system = forecast_traits(model, ORBITS).groupby("configuration")
    for measure in MEASURES:
        row = table.loc[model.name, measure]
        assert row["systems"] == 3
        assert row["mean"] == pytest.approx(by_system[measure].mean().mean())
    backwards = dataclasses.replace(ORBITS, configurations=ORBITS.configurations[::-1])
    again = chaotic_traits(model, backwards).set_index(["forecaster", "measure"])
    np.testing.assert_allclose(again["mean"], table["mean"], atol=1e-5)


def test_the_future_of_a_chaotic_system_is_no_copy() -> None:
    """The parrot is wrong there, and is found in its context exactly, as the true future is not."""
    windows = forecast_traits(Parrot(context_length=1024), chaos())
    copies = windows[windows["parroting"] > 1 - 1e-6]  # others go on from what they copied themselves
    assert len(copies) > len(windows) / 2
    assert copies["error"].mean() > 0.1
    assert (copies["excess_parroting"] > 0).all()


def test_the_mechanism_is_that_of_the_heads_named_on_other_data() -> None:
    """Intervals are over systems: windows of one count together."""
    model = tiny("tiny-timesfm")
    sharpness = {c.address: float(i) for i, c in enumerate(model.anatomy.components("head"))}
    suite = Suite(
        "s",
        tuple(configuration(f"{n}/H/short", [60, 90, 75, 128], 12, owners=[0, 0, 1, 1]) for n in "abc"),
    )
    found = chaotic_mechanism(model, suite, sharpness, per_system=4)
    expected = head_effects(
        model,
        suite,
        sharpness,
        per_configuration=4,
        shares=[0.3],
        draws=3,
        single=False,
    )
    assert found.equals(mechanism_table({model.name: expected}))
    assert set(found["units"]) <= {0, 3}
