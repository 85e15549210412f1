"""heads@Xpp: the formula by hand, both selections, and a real run against `evaluate`."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.suites import small_suite, tiny
from tsprune import ablate, evaluate, heads_at
from tsprune.data import Suite, split
from tsprune.errors import TspruneError
from tsprune.evaluation import WindowStatistics, geometric_mean_ratios
from tsprune.hooks.ablation import Ablation
from tsprune.pruning.heads_at import (
    Prefix,
    calibration_masks,
    heads_at_frame,
    most_removable,
    prefix_ablations,
)
from tsprune.pruning.strategies import ordered
from tsprune.scores import rank
from tsprune.sweeps import CLEAN, SweepResult, run
from tsprune.sweeps.sweep_result import WindowScores

some = settings(max_examples=40, deadline=None)
MODELS = ["tiny-chronos-bolt", "tiny-timesfm"]
CHANGES = st.lists(st.sampled_from([-0.1, 0.0, 0.005, 0.01, 0.02, 1.0, math.nan]), max_size=8)


@pytest.mark.parametrize(
    ("changes", "max_loss", "expected"),
    [
        ([0.02, 0.03, 0.5], 0.01, 0),  # the first head is already too much
        ([0.001, 0.02, 0.009, 0.2], 0.01, 3),  # not monotone: the largest n, whatever came before
        ([0.001, 0.002, 0.003], 0.01, 3),  # all of them
        ([0.01, 0.011], 0.01, 1),  # exactly X percent is within
        ([0.0, 1e-9, -0.1, 0.1], 0, 3),  # no loss: no worse than unablated
        ([math.nan, 0.0, math.nan], 0.01, 2),  # an undefined score is not within
        ([], 0.01, 0),
    ],
)
def test_most_removable_by_hand(changes: list[float], max_loss: float, expected: int) -> None:
    assert most_removable(changes, max_loss) == expected


@some
@given(CHANGES, st.floats(0, 5), st.floats(0, 5))
def test_a_looser_limit_never_keeps_more(changes: list[float], a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert 0 <= most_removable(changes, low) <= most_removable(changes, high) <= len(changes)


# --- prefixes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_prefixes_follow_the_ranking(name: str) -> None:
    ranking = rank(tiny(name))
    prefixes = prefix_ablations(ranking)
    assert len(prefixes) == 2 * len(ranking)
    for prefix, ablation in prefixes.items():
        turns = ordered(ranking, prefix.order).set_index("address")["turn"]
        inside = [
            a for a in turns.index if a.startswith(f"{prefix.stack}.{prefix.layer}.{prefix.attention}.")
        ]
        expected = {address for address in inside if turns[address] < prefix.count}
        assert {c.address for c in ablation.components} == expected
        assert len(expected) == prefix.count
    everything = [a for prefix, a in prefixes.items() if prefix.count == 3]
    assert len(set(everything)) == len(everything) / 2  # both orders end at the same ablation


def test_the_paper_order_starts_with_the_highest_stable_rank() -> None:
    ranking = rank(tiny("tiny-timesfm"))
    prefix = Prefix("stack", 1, "self", "high-to-low", 1)
    (first,) = prefix_ablations(ranking)[prefix].components
    layer = ranking[ranking["layer"] == 1]
    assert first.address == layer.loc[layer["stable_rank"].idxmax(), "address"]


# --- the table, by hand --------------------------------------------------------------------------


def statistics(errors: list[float]) -> WindowStatistics:
    ones = np.ones(len(errors))
    fields = {field.name: ones for field in dataclasses.fields(WindowStatistics)}
    # CRPS is 10 where MASE is, so that mixing up the metrics cannot go unnoticed
    fields |= {"scaled_error_sum": np.array(errors), "quantile_loss_sum": 10 + np.array(errors)}
    return WindowStatistics(**fields)


def swept(errors: dict[Ablation, list[float]]) -> SweepResult:
    """A sweep over one configuration of four windows with these scaled errors."""
    scores = {
        ablation: {"a": WindowScores(statistics(values), np.zeros(4))} for ablation, values in errors.items()
    }
    return SweepResult({"a": np.arange(4)}, scores, {}, ())


@pytest.fixture
def prefixes() -> dict[Prefix, Ablation]:
    """Both orders of three heads of layer 1."""
    frame = rank(tiny("tiny-timesfm"))
    return prefix_ablations(frame[frame["layer"] == 1])


def test_both_selections_by_hand(prefixes: dict[Prefix, Ablation]) -> None:
    # windows 0 and 1 calibrate; all clean errors are 100
    def of(order: str, count: int) -> Ablation:
        return next(a for p, a in prefixes.items() if (p.order, p.count) == (order, count))

    errors = {
        CLEAN: [100.0] * 4,
        of("high-to-low", 1): [100.5, 100.5, 100.0, 130.0],
        of("high-to-low", 2): [103.0, 103.0, 100.0, 100.0],
        of("low-to-high", 1): [102.0, 102.0, 90.0, 90.0],
        of("low-to-high", 2): [100.9, 100.9, 150.0, 130.0],
        of("high-to-low", 3): [200.0] * 4,
    }
    calibration = {"a": np.array([True, True, False, False])}
    frame = heads_at_frame(
        swept(errors), prefixes, max_loss=0.01, metric="MASE", calibration=calibration
    ).set_index("selection")
    assert list(frame.index) == ["test", "calibration"]
    assert frame["heads"].tolist() == [3, 3]
    # on all windows: high-to-low +7.75 %, +1.5 %; low-to-high -4 %, +20.45 %; all three +100 %
    test = frame.loc["test"]
    assert (test["order"], test["removed"], test["heads_at"]) == ("low-to-high", 1, 2)
    assert test["score_change"] == pytest.approx(-0.04)
    # on calibration: high-to-low +0.5 %, +3 %; low-to-high +2 %, +0.9 %; reported on windows 2 and 3
    honest = frame.loc["calibration"]
    assert (honest["order"], honest["removed"], honest["heads_at"]) == ("low-to-high", 2, 1)
    assert honest["score_change"] == pytest.approx(0.40)
    by_crps = heads_at_frame(swept(errors), prefixes, max_loss=0.01, metric="CRPS", calibration=calibration)
    assert by_crps["removed"].tolist() == [1, 2]
    assert by_crps["score_change"].tolist() == pytest.approx([-4 / 110, 40 / 110])


def test_a_tie_goes_to_the_paper_order(prefixes: dict[Prefix, Ablation]) -> None:
    calibration = {"a": np.array([True, False, True, False])}
    worse = {ablation: [150.0] * 4 for ablation in prefixes.values()} | {CLEAN: [100.0] * 4}
    frame = heads_at_frame(swept(worse), prefixes, max_loss=0.01, metric="MASE", calibration=calibration)
    assert frame["order"].tolist() == ["high-to-low"] * 2
    assert frame["heads_at"].tolist() == [3, 3]
    assert frame["score_change"].tolist() == [0, 0]  # nothing removed, nothing changed


def test_all_heads_may_go(prefixes: dict[Prefix, Ablation]) -> None:
    calibration = {"a": np.array([True, False, True, False])}
    same = {ablation: [100.0] * 4 for ablation in prefixes.values()} | {CLEAN: [100.0] * 4}
    frame = heads_at_frame(swept(same), prefixes, max_loss=0.0, metric="MASE", calibration=calibration)
    assert frame["heads_at"].tolist() == [0, 0]
    assert frame["removed"].tolist() == [3, 3]


def test_nothing_is_removed_on_no_evidence(prefixes: dict[Prefix, Ablation]) -> None:
    nothing = {"a": np.zeros(4, bool)}
    same = {ablation: [100.0] * 4 for ablation in prefixes.values()} | {CLEAN: [100.0] * 4}
    frame = heads_at_frame(swept(same), prefixes, max_loss=0.01, metric="MASE", calibration=nothing)
    assert frame.set_index("selection")["removed"].to_dict() == {"test": 3, "calibration": 0}


# --- windows -------------------------------------------------------------------------------------


@some
@given(st.integers(0, 1000), st.floats(0.05, 0.95))
def test_calibration_and_report_share_no_series(seed: int, fraction: float) -> None:
    suite = small_suite()
    masks = calibration_masks(suite, fraction=fraction, seed=seed)
    for c in suite.configurations:
        mask = masks[c.name]
        assert mask.any()
        assert not mask.all()
        assert not set(c.series[mask]) & set(c.series[~mask])


# --- a real run ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "metric"), [("tiny-chronos-bolt", "MASE"), ("tiny-timesfm", "CRPS")])
def test_the_reported_change_is_what_evaluate_finds(name: str, metric: str) -> None:
    model, suite = tiny(name), small_suite()
    table = heads_at(model, suite, max_loss=0.05, metric=metric)
    frame = table.frame
    sublayers = {(c.stack, c.layer, c.attention) for c in model.anatomy.components("attention")}
    assert set(frame[["stack", "layer", "attention"]].itertuples(index=False, name=None)) == sublayers
    assert len(frame) == 2 * len(sublayers)
    assert (frame["heads_at"] + frame["removed"] == frame["heads"]).all()
    assert ("third/D/short", "no series is long enough") in table.skipped
    before = geometric_mean_ratios(evaluate(model, suite))[metric]
    ranking = rank(model)
    for row in frame[frame["selection"] == "test"].itertuples():
        turns = ordered(ranking, row.order)
        gone = turns[
            (turns["stack"] == row.stack)
            & (turns["layer"] == row.layer)
            & (turns["attention"] == row.attention)
            & (turns["turn"] < row.removed)
        ]["address"].tolist()
        if not gone:
            assert row.score_change == 0
            continue
        with ablate(model, gone):
            after = geometric_mean_ratios(evaluate(model, suite))[metric]
        assert row.score_change == pytest.approx(after / before - 1, abs=1e-12)
        assert row.score_change <= 0.05
    assert (frame["removed"] > 0).any()


def test_the_same_seed_gives_the_same_table() -> None:
    model, suite = tiny("tiny-timesfm"), small_suite()
    pd.testing.assert_frame_equal(*(heads_at(model, suite, seed=1).frame for _ in range(2)))


def test_mistakes_are_named() -> None:
    model, suite = tiny("tiny-timesfm"), small_suite()
    with pytest.raises(TspruneError, match="unknown metric 'RMSE'; one of: MASE, CRPS"):
        heads_at(model, suite, metric="RMSE")
    with pytest.raises(TspruneError, match=r"of at least 0, not -0\.01"):
        heads_at(model, suite, max_loss=-0.01)
    with pytest.raises(TspruneError, match="unknown score"):
        heads_at(model, suite, by="size")
    with pytest.raises(TspruneError, match="no windows"):
        heads_at(model, Suite("empty", ()))


# --- scores that need windows --------------------------------------------------------------------


def with_other_report(suite: Suite, masks: dict[str, NDArray[np.bool_]]) -> Suite:
    """The suite with other histories and targets on the windows that report."""
    changed = []
    for c in suite.configurations:
        calibrates = masks[c.name]
        contexts = [x if keep else 5 * x[::-1] for x, keep in zip(c.contexts, calibrates, strict=True)]
        targets = np.where(calibrates[:, None], c.targets, -3 * c.targets).astype(np.float32)
        changed.append(dataclasses.replace(c, contexts=contexts, targets=targets))
    return dataclasses.replace(suite, configurations=tuple(changed))


@pytest.mark.parametrize("by", ["attention_entropy", "mase_change"])
def test_the_honest_choice_has_not_seen_the_report(by: str) -> None:
    """Order and count stay as they are whatever the windows are that they are judged on."""
    model, suite = tiny("tiny-timesfm"), small_suite()
    masks = calibration_masks(suite, fraction=0.5, seed=0)
    chosen, scores = [], []
    for one in (suite, with_other_report(suite, masks)):
        frame = heads_at(model, one, max_loss=0.05, by=by).frame
        honest = frame[frame["selection"] == "calibration"]
        chosen.append(honest[["layer", "order", "removed"]].reset_index(drop=True))
        scores.append(honest["score_change"].tolist())
    pd.testing.assert_frame_equal(*chosen)
    assert chosen[0]["removed"].gt(0).any()
    assert scores[0] != scores[1]


def test_prefixes_by_a_score_of_windows_are_of_the_calibration_ranking() -> None:
    model, suite = tiny("tiny-chronos-bolt"), small_suite()
    frame = heads_at(model, suite, max_loss=0.05, by="output_norm", seed=4).frame
    ranking = rank(model, split(suite, seed=4)[0], by="output_norm")
    result = run(model, suite, list(prefix_ablations(ranking).values()))
    masks = calibration_masks(suite, fraction=0.5, seed=4)
    expected = heads_at_frame(
        result, prefix_ablations(ranking), max_loss=0.05, metric="MASE", calibration=masks
    )
    pd.testing.assert_frame_equal(frame, expected, check_exact=True)


def test_a_store_is_not_computed_again(tmp_path: Path) -> None:
    model, suite = tiny("tiny-timesfm"), small_suite()
    tables, counts = [], []
    for _ in range(2):
        forecasts: list[int] = []

        def count(stage: str, done: int, total: int, forecasts: list[int] = forecasts) -> None:
            forecasts.append(done)

        tables.append(
            heads_at(model, suite, by="crps_change", store=tmp_path / "a.sqlite", progress=count).frame
        )
        counts.append(len(forecasts))
    pd.testing.assert_frame_equal(*tables)
    assert counts[0] > counts[1] == 0
