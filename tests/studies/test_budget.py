"""Studies within a budget: what matters first, everything else listed, and a larger budget goes on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.suites import configuration, tiny
from tests.sweeping import Counting
from tsprune.data import Suite
from tsprune.evaluation import WindowStatistics
from tsprune.hooks.ablation import Ablation
from tsprune.pruning.heads_at import calibration_masks, heads_at_frame, prefix_ablations
from tsprune.report.study_page import render_report
from tsprune.run_options import RunOptions
from tsprune.scores import rank
from tsprune.studies import study
from tsprune.studies.budget import (
    NOT_MEASURED,
    Budget,
    BudgetedSweeps,
    _Changes,
    bisect_heads_at,
    decided_points,
    next_count,
)
from tsprune.sweeps import run
from tsprune.sweeps.samples import change_sample
from tsprune.sweeps.sweep_result import CLEAN, Masks, SweepResult, WindowScores

SUITE = Suite(
    "several",
    tuple(configuration(f"{name}/D/short", [40 + 4 * n for n in range(7)], horizon=5) for name in "abcd"),
)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_budget_is_a_clock_that_learns_how_long_work_takes() -> None:
    clock = Clock()
    budget = Budget(1000.0, clock)
    assert budget.left == 1000 - 3 - 30  # seconds for intervals, tables and the report
    assert budget.correction == 1.0

    def work() -> object:
        clock.now += 30
        return None

    budget.timed(20.0, work)  # type: ignore[arg-type]
    assert (budget.left, budget.correction) == (937.0, 1.5)
    assert Budget(1.0, clock).left == pytest.approx(0.7)


def test_bisection_finds_the_largest_number_of_heads_that_may_go() -> None:
    for heads in (1, 4, 12):
        for most in range(heads + 1):
            changes = {n: 0.001 * n if n <= most else 0.5 for n in range(heads + 1)}
            known = {0: 0.0}
            while (count := next_count(known, heads, 0.02)) is not None:
                known[count] = changes[count]
            assert max(n for n, change in known.items() if change <= 0.02) == most
            assert len(known) <= 2 + np.ceil(np.log2(heads + 1))


def test_bisected_heads_at_are_those_of_all_prefixes() -> None:
    model = tiny("tiny-chronos-bolt")
    prefixes = prefix_ablations(rank(model))
    masks = calibration_masks(SUITE, fraction=0.5, seed=0)
    sweeps = BudgetedSweeps(model, SUITE, Budget(1e6), RunOptions())
    sweeps.expect(list(prefixes.values()))
    sweeps.want(list(prefixes.values()))
    bisect_heads_at(sweeps, prefixes, 0.02, masks, "heads@")
    found = sweeps.result()
    whole = run(model, sweeps.done[0].suite, list(prefixes.values()))
    part = calibration_masks(sweeps.done[0].suite, fraction=0.5, seed=0)
    assert sum(one in sweeps.measured for one in prefixes.values()) < len(prefixes)
    some = {"max_loss": 0.02, "metric": "MASE"}
    one = heads_at_frame(found, prefixes, calibration=masks, **some)  # type: ignore[arg-type]
    other = heads_at_frame(whole, prefixes, calibration=part, **some)  # type: ignore[arg-type]
    on_all = one["selection"] == "test"
    assert one["removed"][on_all].tolist() == other["removed"][on_all].tolist()


# --- curves that fall, and points that are decided --------------------------------------------------


def measured(changes: dict[Ablation, list[float]]) -> tuple[BudgetedSweeps, Masks]:
    """A first round in which each ablation changes MASE by so much, configuration by configuration."""
    sweeps = BudgetedSweeps(tiny("tiny-chronos-bolt"), SUITE, Budget(1e6), RunOptions())
    part = sweeps.done[0].suite.configurations

    def scores(factor: float, count: int) -> WindowScores:
        ones = np.ones(count)
        same = WindowStatistics(*(ones for _ in dataclasses.fields(WindowStatistics)))
        return WindowScores(dataclasses.replace(same, scaled_error_sum=factor * ones), 0 * ones)

    every = {CLEAN: [0.0] * len(part)} | changes
    found = {
        one: {c.name: scores(1 + change, len(c)) for c, change in zip(part, values, strict=True)}
        for one, values in every.items()
    }
    sweeps.done[0].results.append(SweepResult({c.name: np.arange(len(c)) for c in part}, found, {}, ()))
    sweeps.measured = dict.fromkeys(every)
    return sweeps, calibration_masks(SUITE, fraction=0.5, seed=0)


def some_heads(model: str, count: int) -> list[Ablation]:
    return [Ablation((head,)) for head in tiny(model).anatomy.components("head")[:count]]


def test_a_curve_that_falls_by_more_than_its_interval_is_seen() -> None:
    two, four, six = some_heads("tiny-chronos-bolt", 3)
    noisy = [0.09, 0.01, 0.12, -0.04]  # of the same mean as `lower`, but for its interval
    for high, low, expected in (
        ([0.5, 0.52, 0.51, 0.5], [0.3, 0.31, 0.32, 0.3], True),
        ([0.05, 0.06, 0.05, 0.04], noisy, False),
        ([0.009, 0.008, 0.009, 0.009], [0.001, 0.001, 0.002, 0.001], False),  # all within the loss
        ([0.3, 0.31, 0.32, 0.3], [0.5, 0.52, 0.51, 0.5], False),  # it rises
    ):
        sweeps, masks = measured({two: [0.0] * 4, four: high, six: low})
        curves = {("curve",): {2: two, 4: four, 6: six}}
        assert _Changes(sweeps).falling(curves, 0.01) == ({("curve",)} if expected else set())
        assert _Changes(sweeps, masks).falling(curves, 0.01) == ({("curve",)} if expected else set())


def test_a_point_is_decided_if_its_interval_excludes_the_loss() -> None:
    beyond, within, open_ = some_heads("tiny-chronos-bolt", 3)
    sweeps, masks = measured(
        {beyond: [0.5, 0.52, 0.51, 0.5], within: [0.0, 0.001, 0.0, 0.002], open_: [0.0, 0.03, 0.01, 0.02]}
    )
    assert decided_points(sweeps, [beyond, within, open_], 0.01, masks) == [beyond, within]
    assert decided_points(sweeps, [open_], 0.01, masks) == []


def test_decided_points_wait_and_are_compared_on_the_windows_they_have() -> None:
    """Other points are as without the race; with time left, what waited is measured, too."""
    model, clock, (open_, decided) = tiny("tiny-timesfm"), Clock(), some_heads("tiny-timesfm", 2)
    sweeps = BudgetedSweeps(model, SUITE, Budget(1e6, clock), RunOptions())
    sweeps.expect([open_, decided])
    sweeps.first([open_, decided], "heads@")
    before = sweeps.result()

    def until_round_three() -> list[Ablation]:
        clock.now = 1e9 if len(sweeps.done) == 3 else 0.0
        return [decided]

    sweeps.further(0.0, "more windows", until_round_three)
    found = sweeps.result()
    assert {name: mask.tolist() for name, mask in found.partial[decided].items()} == {
        name: [True] * 2 + [False] * 4 for name in found.rows
    }
    assert found.change(decided) == before.change(decided)
    assert found.change(open_)["MASE"] != before.change(open_)["MASE"]
    both = change_sample(found, SUITE, [open_, decided], "MASE")
    alone = change_sample(before, SUITE, [decided], "MASE")
    np.testing.assert_array_equal(both.values[:, :, 1], alone.values[:, :, 0])
    assert both.means()[0] == pytest.approx(np.log1p(found.change(open_)["MASE"]))

    clock.now = 0.0
    sweeps.further(0.0, "more windows", lambda: [decided])
    assert not sweeps.result().partial


def test_a_large_budget_measures_everything_and_a_store_has_it(tmp_path: Path) -> None:
    model = Counting(tiny("tiny-timesfm"))
    found = study([model], SUITE, explain=False, budget=1e6, store=tmp_path / "s")
    plain = study([model.inner], SUITE, explain=False)
    assert not any("windows" in what for what, _ in found.skipped)
    one, other = found.models[0], plain.models[0]
    for name in ("layers", "heads", "pruning"):
        changes = [getattr(each, name)["mase_change"].to_numpy(float) for each in (one, other)]
        np.testing.assert_allclose(*changes, rtol=2e-3, atol=2e-4)  # TimesFM normalises by batch
    np.testing.assert_allclose(one.baseline["MASE"], other.baseline["MASE"], rtol=1e-3)
    assert found.manifest["arguments"]["budget"] == 1e6  # type: ignore[index]
    model.calls = 0
    again = study([model], SUITE, explain=False, budget=1e6, store=tmp_path / "s")
    assert model.calls < 100  # those that are timed
    np.testing.assert_array_equal(again.models[0].heads["mase_change"], one.heads["mase_change"])


def test_all_that_is_not_reached_is_listed_and_the_report_stands() -> None:
    found = study([tiny("tiny-chronos-bolt")], SUITE, budget=1e-3)
    listed = {what.split(": ")[1]: reason for what, reason in found.skipped}
    assert {"layers", "heads", "pruned models", "windows", "scores", "explanation"} <= set(listed)
    assert all(NOT_MEASURED in reason for reason in listed.values())
    one = found.models[0]
    assert one.mase_ratio > 0  # the baseline comes first
    assert one.heads["mase_change"].isna().all()
    assert {claim.verdict for claim in found.claims} <= {"not applicable", "undecided"}
    assert NOT_MEASURED in render_report(found)
