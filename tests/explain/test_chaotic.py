"""Forecasts of trajectories beside forecasters that copy; a planted copying head carries their parroting."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.suites import ORBITS, configuration, tiny
from tsprune.data import Suite, chaos
from tsprune.explain import chaotic_mechanism, chaotic_traits, forecast_traits, head_effects, mechanism_table
from tsprune.explain.baselines import Parrot
from tsprune.explain.chaotic import MEASURES


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
