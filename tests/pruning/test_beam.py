"""The beam search: against all sets there are, on models small enough to try them."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from tests.suites import configuration, tiny
from tsprune import prune
from tsprune.anatomy import Component
from tsprune.data import Suite
from tsprune.hooks.ablation import Ablation
from tsprune.pruning.beam import beam, undominated
from tsprune.pruning.losses import CalibrationLosses, RemovalStep
from tsprune.pruning.savings import joined, leaves_every_stack, measure_savings
from tsprune.statistics import Estimate
from tsprune.sweeps import run

parse = Component.parse


def suite() -> Suite:
    return Suite("beam", (configuration("a/D/short", [60, 50, 64, 55], horizon=5),))


def test_wide_enough_it_finds_what_trying_everything_does() -> None:
    model = tiny("tiny-timesfm")
    losses, savings = CalibrationLosses(suite(), "MASE", 0.5), measure_savings(model, "parameters")
    wanted = [c for c in model.anatomy.components() if c.kind in ("attention", "mlp")]
    every = [
        group
        for count in range(1, len(wanted) + 1)
        for group in combinations(wanted, count)
        if leaves_every_stack(group, model.anatomy)
    ]
    result = run(model, suite(), [Ablation(group) for group in every])
    cost = {frozenset(g): result.change(Ablation(g))["MASE"] for g in every}
    found = beam(model, losses, savings, 1e6, kinds=("attention", "mlp"), width=100, tries=100)
    assert {frozenset(step.components) for step in found} == cost.keys()
    assert len(found) == len(cost)
    for step in found:
        assert step.loss == pytest.approx(cost[frozenset(step.components)], abs=1e-6)
        smaller = prune(model, step.components)
        assert step.saved == pytest.approx(1 - smaller.parameter_count / model.parameter_count)


def test_nothing_is_added_to_what_is_beyond_the_budget_and_it_is_the_same_again() -> None:
    model = tiny("tiny-chronos-bolt")
    losses, savings = CalibrationLosses(suite(), "MASE", 0.5), measure_savings(model, "flops")
    runs = [beam(model, losses, savings, 0.02, width=2, tries=3) for _ in range(2)]
    assert runs[0] == runs[1]
    for step in runs[0]:
        assert step.before is not None
        assert all(earlier.fits(0.02) for earlier in step.before.path())
        assert step.lowest == min([0.0, *(s.loss for s in step.path())])
        assert len(model.anatomy.expand(step.components)) == len(set(model.anatomy.expand(step.components)))


def test_heads_alone_are_no_matter_of_a_beam() -> None:
    model = tiny("tiny-timesfm")
    assert (
        beam(
            model,
            CalibrationLosses(suite(), "MASE", 0.5),
            measure_savings(model, "flops"),
            1.0,
            kinds=("head",),
        )
        == []
    )


def test_a_gain_is_not_spent() -> None:
    first = RemovalStep().then((parse("stack.1.mlp"),), 0.1, Estimate(-0.05, -0.06, -0.04, 0.0, 4))
    second = first.then((parse("stack.1.mlp"), parse("stack.2")), 0.3, Estimate(-0.03, -0.05, 0.0, 0.0, 4))
    assert first.fits(0.01)
    assert second.limit <= 0.01
    assert not second.fits(0.01)  # 2 % above the best on the way
    assert second.fits(0.022)
    assert second.path() == [first, second]


def test_the_frontier_by_hand() -> None:
    points = [(0.1, 0.01), (0.2, 0.05), (0.2, 0.02), (0.15, 0.03), (0.4, 0.5), (0.05, 0.01), (0.3, np.inf)]
    steps = [RemovalStep((parse(f"stack.{n}"),), saved, loss) for n, (saved, loss) in enumerate(points)]
    assert [(s.saved, s.loss) for s in undominated(steps)] == [(0.1, 0.01), (0.2, 0.02), (0.4, 0.5)]


def test_a_layer_takes_the_place_of_its_parts() -> None:
    parts = (parse("stack.1.mlp"), parse("stack.2.self"))
    assert joined(parts, parse("stack.1")) == (parse("stack.2.self"), parse("stack.1"))
