"""Which heads do it: sets matched by sublayer, effects that equal plain ablations, planted heads found."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest

import tsprune
from tests.planted import COPY, LAG, Planted
from tests.suites import configuration, tiny, waves
from tsprune.anatomy import Component
from tsprune.data import Suite
from tsprune.errors import TspruneError
from tsprune.explain import (
    Parrot,
    attention,
    forecast_traits,
    head_effects,
)
from tsprune.explain.mechanism import equal_damage, head_sets

SUITE = Suite("s", (configuration("a/D/short", [60, 90, 128, 75, 128], 12, owners=[0, 0, 1, 2, 3]),))


def sharpness(layers: int = 4, heads: int = 8) -> dict[Component, float]:
    rng = np.random.default_rng(0)
    return {
        Component("stack", x, "self", h): float(rng.random()) for x in range(layers) for h in range(heads)
    }


@pytest.mark.parametrize("percent", [5, 10, 20, 30, 50])
def test_sets_hold_as_many_heads_of_every_sublayer(percent: int) -> None:
    ranked = sharpness()
    sets = head_sets(ranked, shares=[percent / 100], draws=3)
    assert [x.which for x in sets] == ["sharp", "diffuse", "random", "random", "random"]
    counts = [Counter(h.layer for h in x.heads) for x in sets]
    assert all(count == counts[0] for count in counts)
    assert len(sets[0].heads) == round(percent / 100 * 32)
    assert len({x.heads for x in sets[2:]}) == 3
    for which, sign in (("sharp", 1), ("diffuse", -1)):
        (chosen,) = (x.heads for x in sets if x.which == which)
        for layer, count in counts[0].items():
            order = sorted((h for h in ranked if h.layer == layer), key=lambda h: -sign * ranked[h])
            assert {h for h in chosen if h.layer == layer} == set(order[:count])


def test_heads_without_a_choice_are_in_no_set() -> None:
    ranked = sharpness(1, 4) | {Component("stack", 1, "self", 0): float("nan")}
    assert all(h.layer == 0 for x in head_sets(ranked, shares=[0.5]) for h in x.heads)
    with pytest.raises(TspruneError, match="sharpness"):
        head_effects(tiny("tiny-timesfm"), SUITE, {})


def test_effects_are_those_of_plain_ablations() -> None:
    model = tiny("tiny-timesfm")
    sharp = {c.address: float(i) for i, c in enumerate(model.anatomy.components("head"))}
    found = head_effects(model, SUITE, sharp, shares=[0.3], draws=2)
    clean = forecast_traits(model, SUITE)
    address = "stack.1.self.head.2"
    with tsprune.ablate(model, address):
        ablated = forecast_traits(model, SUITE)
    row = found.heads.set_index("address").loc[address]
    for trait in ("parroting", "seasonality", "mean_reversion"):
        change = (ablated[trait] - clean[trait]).groupby(clean["series"]).mean()
        assert row[trait] == pytest.approx(change.mean(), abs=1e-6, nan_ok=True)
    assert found.clean["parroting"].value == pytest.approx(
        clean.groupby("series")["excess_parroting"].mean().mean(), abs=1e-6
    )
    assert found.heads["parroting"].is_monotonic_increasing
    assert len(found.heads) == 9


def test_the_planted_copy_is_what_forecasts() -> None:
    """The copying head gives most of the forecast of a wave, so without it the error is larger."""
    model, suite = Planted(), waves(LAG)
    sharp = attention(model, suite).heads.set_index("address")["sharpness"]
    found = head_effects(model, suite, sharp, shares=[0.5], draws=4)
    table = found.sets.set_index(["which", "effect"])["mean"]
    assert table["sharp", "mase"] > 0 > table["diffuse", "mase"] - 0.2
    assert table["sharp", "mase"] > table["random", "mase"] > table["diffuse", "mase"]
    excess = found.sets.set_index(["which", "effect"])["excess"]["sharp", "mase"]
    assert excess == pytest.approx(table["sharp", "mase"] - table["random", "mase"])


TREND = 0.05


def test_the_planted_copy_is_what_parrots() -> None:
    """Parroting with and without the copying head, computed by hand.

    The forecast of six steps is COPY times the last period of a wave (phase 30 degrees), plus TREND
    times a ramp r = -2.5, ..., 2.5, plus a constant. On a segment of phase p, a wave of sum of squares 3:
    wave . segment = 3 cos(p - 30), r . segment = 6 sin(p - 120), r . r = 17.5. Segments have the
    phases 30, 90, ..., 330. Without the copy the ramp alone is left, most like phase 210: 6 / sqrt(3 * 17.5).
    """
    model, suite = Planted(TREND), waves(LAG, horizon=LAG, phase=np.pi / 6)
    sharp = attention(model, suite).heads.set_index("address")["sharpness"]
    found = head_effects(model, suite, sharp, shares=[0.5], draws=2)
    phases = np.radians([30, 90, 150, 210, 270, 330])
    copied = COPY * 3 * np.cos(phases - np.radians(30)) + TREND * 6 * np.sin(phases - np.radians(120))
    size = COPY**2 * 3 + TREND**2 * 17.5 + 2 * COPY * TREND * 6 * np.sin(np.radians(30 - 120))
    before, after = (copied / np.sqrt(3 * size)).max(), 6 / np.sqrt(3 * 17.5)
    effect = found.heads.set_index("address")["parroting"]
    assert before > 0.98
    assert effect["stack.0.self.head.0"] == pytest.approx(after - before, abs=1e-4)
    assert effect["stack.0.self.head.1"] == pytest.approx(0, abs=1e-4)  # its average is a constant
    sets = found.sets.set_index(["which", "effect"])
    assert sets.loc[("sharp", "parroting"), "mean"] == pytest.approx(after - before, abs=1e-4)
    assert sets.loc[("diffuse", "parroting"), "mean"] == pytest.approx(0, abs=1e-4)
    assert found.heads["address"].tolist() == ["stack.0.self.head.0", "stack.0.self.head.1"]


def test_claims_are_about_the_mean_over_percentages_with_the_luck_of_the_draws() -> None:
    model = tiny("tiny-timesfm")
    sharp = {c.address: float(i) for i, c in enumerate(model.anatomy.components("head"))}
    found = head_effects(model, SUITE, sharp, shares=[0.3, 0.6], draws=3, single=False)
    sets = found.sets[found.sets["which"] != "random"]
    means = sets.groupby(["which", "effect"])["excess"].mean()
    assert found.samples is not None
    for (which, effect), sample in found.samples.excess.items():
        assert sample.values.shape == (3, 4, 1)
        if effect != "seasonality":  # not all series have one under every draw
            assert sample.estimate().value == pytest.approx(means[which, effect], abs=1e-9)
    random = found.sets[found.sets["which"] == "random"].dropna(subset="mean")
    assert (random["draw_low"] <= random["mean"] + 1e-12).all()
    assert (random["draw_high"] >= random["mean"] - 1e-12).all()
    assert (random["draw_high"] > random["draw_low"]).any()
    assert found.samples.percent == 30


def test_equal_damage_by_hand() -> None:
    """Random heads cost 1.5 of error on average; sharp sets cost 0, 1 and 3: a quarter of the way to 3."""
    units = np.array([-0.5, 0.5])
    steps = [
        {"mase": np.zeros(2), "parroting": np.zeros(2)},
        {"mase": 1 + units, "parroting": np.array([-0.2, -0.4])},
        {"mase": 3 + units, "parroting": np.array([-0.8, -0.6])},
    ]
    loss = np.stack([1.5 + 2 * units, 1.5 - 2 * units])
    change = np.full((2, 2), -0.1)
    found = equal_damage(steps, loss, change, "parroting")
    assert found is not None
    # sharp heads at that error: -0.3 + 0.25 * (-0.7 + 0.3) = -0.4, so -0.3 less than the random ones
    assert found.mean() == pytest.approx(-0.3)
    slope = (-0.7 + 0.3) / (3 - 1)
    sharp, error = np.array([-0.35, -0.45]), 1.5 + units
    np.testing.assert_allclose(found, sharp - change - slope * (error - loss))


@pytest.mark.parametrize("loss", [0.0, -1.0, 4.0])
def test_without_damage_or_beyond_the_ladder_nothing_is_equal(loss: float) -> None:
    steps = [{"mase": np.full(3, x), "parroting": np.full(3, -x)} for x in (0.0, 1.0, 3.0)]
    assert equal_damage(steps, np.full((2, 3), loss), np.zeros((2, 3)), "parroting") is None


def test_units_without_the_trait_do_not_count_atequal_damage() -> None:
    steps = [{"mase": np.full(3, x), "seasonality": np.full(3, -x)} for x in (0.0, 2.0)]
    change = np.array([[0.0, np.nan, 0.0]])
    found = equal_damage(steps, np.ones((1, 3)), change, "seasonality")
    assert found is not None
    np.testing.assert_allclose(found, [[-1.0, np.nan, -1.0]])


def test_a_forecast_that_is_merely_ruined_carries_no_trait() -> None:
    """Without the copying head parroting falls more than without the other, but so does the error rise."""
    model = Planted(TREND)
    suite = Suite(
        "s",
        tuple(dataclasses.replace(waves(LAG, horizon=LAG).configurations[0], name=n) for n in "abcdef"),
    )
    sharp = attention(model, suite).heads.set_index("address")["sharpness"]
    found = head_effects(model, suite, sharp, shares=[0.5], draws=6)
    assert found.samples is not None
    excess = found.samples.excess["sharp", "parroting"].estimate()
    matched = found.samples.matched["parroting"].estimate()
    assert excess.value < 0
    assert not matched.value < excess.value


def test_traits_of_a_parrot() -> None:
    """What copies its context is found in it exactly; the true future, noise about a wave, is not."""
    table = forecast_traits(Parrot(), SUITE)
    assert table["window"].tolist() == [0, 1, 2, 3, 4]
    assert table["parroting"].median() == pytest.approx(1, abs=1e-6)
    assert (table["excess_parroting"] >= 0).all()
