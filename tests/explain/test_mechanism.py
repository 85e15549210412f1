"""Which heads do it: sets matched by sublayer, effects that equal plain ablations, planted heads found."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pandas as pd
import pytest

import tsprune
from tests.explain.test_attention_maps import waves
from tests.planted import LAG, Planted
from tests.suites import configuration, tiny
from tsprune.anatomy import Component
from tsprune.data import Suite
from tsprune.errors import TspruneError
from tsprune.explain import HeadEffects, attention, forecast_traits, head_effects, parrot, verdicts
from tsprune.explain.mechanism import head_sets

SUITE = Suite("s", (configuration("a/D/short", [60, 90, 128, 75, 128], 12, owners=[0, 0, 1, 2, 3]),))


def sharpness(layers: int = 4, heads: int = 8) -> dict[Component, float]:
    rng = np.random.default_rng(0)
    return {
        Component("stack", x, "self", h): float(rng.random()) for x in range(layers) for h in range(heads)
    }


@pytest.mark.parametrize("percent", [5, 10, 20, 30, 50])
def test_sets_hold_as_many_heads_of_every_sublayer(percent: int) -> None:
    ranked = sharpness()
    sets = head_sets(ranked, percents=[percent], draws=3)
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
    assert all(h.layer == 0 for x in head_sets(ranked, percents=[50]) for h in x.heads)
    with pytest.raises(TspruneError, match="sharpness"):
        head_effects(tiny("tiny-timesfm"), SUITE, {})


def test_effects_are_those_of_plain_ablations() -> None:
    model = tiny("tiny-timesfm")
    sharp = {c.address: float(i) for i, c in enumerate(model.anatomy.components("head"))}
    found = head_effects(model, SUITE, sharp, percents=[30], draws=2)
    clean = forecast_traits(model, SUITE)
    address = "stack.1.self.head.2"
    with tsprune.ablate(model, address):
        ablated = forecast_traits(model, SUITE)
    row = found.heads.set_index("address").loc[address]
    for trait in ("parroting", "seasonality", "mean_reversion"):
        change = (ablated[trait] - clean[trait]).groupby(clean["series"]).mean()
        assert row[trait] == pytest.approx(change.mean(), abs=1e-6, nan_ok=True)
    assert found.clean["parroting"].mean == pytest.approx(
        clean.groupby("series")["excess_parroting"].mean().mean(), abs=1e-6
    )
    assert found.heads["parroting"].is_monotonic_increasing
    assert len(found.heads) == 9


def test_the_planted_copy_is_what_forecasts() -> None:
    """The copying head gives most of the forecast of a wave, so without it the error is larger."""
    model, suite = Planted(), waves(LAG)
    sharp = attention(model, suite).heads.set_index("address")["sharpness"]
    found = head_effects(model, suite, sharp, percents=[50], draws=4)
    table = found.sets.set_index(["which", "effect"])["mean"]
    assert table["sharp", "mase"] > 0 > table["diffuse", "mase"] - 0.2
    assert table["sharp", "mase"] > table["random", "mase"] > table["diffuse", "mase"]
    excess = found.sets.set_index(["which", "effect"])["excess"]["sharp", "mase"]
    assert excess == pytest.approx(table["sharp", "mase"] - table["random", "mase"])


def test_verdicts() -> None:
    rows = [
        {"percent": 10, "which": which, "effect": effect, "mean": mean}
        | ({"excess": low + 0.1, "excess_low": low, "excess_high": low + 0.2} if which != "random" else {})
        for effect, low in (("parroting", -0.3), ("seasonality", -0.1), ("mase", 0.0))
        for which, mean in (("sharp", -0.2), ("diffuse", -0.01), ("random", -0.1))
    ]
    effects = HeadEffects(pd.DataFrame(rows), pd.DataFrame(), {})
    table = verdicts({"m": effects})
    assert table["verdict"].tolist() == ["holds", "open"]
    flipped = dataclasses.replace(effects, sets=effects.sets.assign(excess_low=0.1, excess_high=0.3))
    assert verdicts({"m": flipped})["verdict"].tolist() == ["refuted", "refuted"]


def test_traits_of_a_parrot() -> None:
    """What copies its context is found in it exactly; the true future, noise about a wave, is not."""
    table = forecast_traits(parrot(), SUITE)
    assert table["window"].tolist() == [0, 1, 2, 3, 4]
    assert table["parroting"].median() == pytest.approx(1, abs=1e-6)
    assert (table["excess_parroting"] >= 0).all()
