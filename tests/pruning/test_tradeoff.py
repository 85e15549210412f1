"""The curve of accuracy against time: its points are models that can be made and measured again."""

from __future__ import annotations

import functools
from itertools import pairwise

import pytest

from tests.suites import configuration, tiny
from tsprune import Plan, prune
from tsprune.data import Suite, split
from tsprune.errors import TspruneError
from tsprune.pruning import compare, search, tradeoff
from tsprune.pruning.losses import RemovalStep
from tsprune.pruning.tradeoff import _thinned, search_path

# few and short histories: the models are tiny
plan = functools.partial(search.plan, histories=16, history=64)


def suite(longer: int = 0) -> Suite:
    lengths = [n + longer for n in (60, 50, 64, 55, 61, 48)]
    return Suite("curve", (configuration("first/D/short", lengths, horizon=5),))


def test_the_points_of_a_plan() -> None:
    model, whole = tiny("tiny-timesfm"), suite()
    chosen = plan(model, whole, max_loss=0.2, objective="flops")
    assert chosen.components
    points = tradeoff(model, chosen, whole, rounds=2)
    assert set(points["way"]) == {"search", "whole layers"}
    last = points[points["way"] == "search"].iloc[-1]
    assert set(last["what"].split()) == {c.address for c in chosen.components}
    assert last["calibration_loss"] == chosen.provenance["loss_on_calibration"]
    assert last["expected_saving"] == chosen.provenance["expected_saving"]
    report = split(whole)[1]
    for row in points.to_dict("records"):
        smaller = prune(model, row["what"].split())
        change = compare(model, smaller, report).change["MASE"]
        assert (row["mase_change"], row["mase_low"], row["mase_high"]) == (
            change.value,
            change.low,
            change.high,
        )
        assert row["parameters"] == smaller.parameter_count / model.parameter_count
        assert row["speedup_per_flops"] == pytest.approx(row["flops"] / row["time_ratio"])
    layers = points[points["way"] == "whole layers"]
    assert all("." not in part.removeprefix("stack.") for what in layers["what"] for part in what.split())
    assert layers["expected_saving"].is_monotonic_increasing
    assert layers["calibration_loss"].is_monotonic_increasing


def test_a_way_survives_the_plans_file() -> None:
    model = tiny("tiny-chronos-bolt")
    chosen = plan(model, suite(), max_loss=0.3, objective="flops")
    steps = search_path(Plan.from_json(chosen.to_json()))
    assert set(steps[-1].components) == set(chosen.components)
    assert [step.loss for step in steps] == [stated["loss"] for stated in chosen.provenance["path"]]
    for earlier, later in pairwise(steps):
        gone, more = (set(model.anatomy.expand(step.components)) for step in (earlier, later))
        assert {c for c in gone if c.kind != "head"} <= more  # a head may have gone with its sublayer


@pytest.mark.parametrize(
    ("count", "most", "expected"), [(3, 6, [0, 1, 2]), (6, 6, list(range(6))), (10, 3, [3, 6, 9])]
)
def test_points_are_spread_evenly(count: int, most: int, expected: list[int]) -> None:
    steps = [RemovalStep(saved=float(place)) for place in range(count)]
    assert [step.saved for step in _thinned(steps, most)] == expected


def test_a_plan_without_a_way_or_of_other_series() -> None:
    model = tiny("tiny-timesfm")
    by_hand = Plan.of(model, "stack.1.mlp", chosen="by hand")
    with pytest.raises(TspruneError, match="records no search path"):
        tradeoff(model, by_hand, suite())
    chosen = plan(model, suite(), max_loss=0.2, objective="flops", kinds=["mlp"])
    with pytest.raises(TspruneError, match="other series than those of curve"):
        tradeoff(model, chosen, suite(longer=3))
