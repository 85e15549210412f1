"""Tables of a study: intervals beside every change, families corrected, strategies compared in pairs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tests.suites import small_suite, tiny
from tests.toy import Toy
from tsprune.anatomy import Anatomy
from tsprune.data.split import CALIBRATION_FRACTION
from tsprune.pruning.heads_at import calibration_masks, heads_at_frame
from tsprune.scores import rank
from tsprune.statistics import holm
from tsprune.studies.experiments import PRUNED_PERCENT, RANDOM_DRAWS, StudyPlan, study_plan
from tsprune.studies.study_tables import (
    Effects,
    comparisons_table,
    heads_table,
    layers_table,
    pruning_table,
    rank_correlation,
    with_intervals,
)
from tsprune.sweeps import SweepResult, run

MODEL = tiny("tiny-chronos-bolt")
SUITE = small_suite()
RANKING = rank(MODEL)
WANTED: StudyPlan = study_plan(MODEL.anatomy, RANKING, 0)
ANATOMY: Anatomy = MODEL.anatomy


@pytest.fixture(scope="module")
def result() -> SweepResult:
    return run(MODEL, SUITE, WANTED.ablations())


@pytest.fixture(scope="module")
def effects(result: SweepResult) -> Effects:
    return Effects(result, SUITE, WANTED.ablations(), seed=0)


def test_every_change_has_its_interval(effects: Effects, result: SweepResult) -> None:
    tables = {
        "layers": (layers_table(effects, WANTED), WANTED.layers),
        "heads": (heads_table(effects, WANTED, RANKING), WANTED.heads),
        "pruning": (pruning_table(effects, WANTED), WANTED.pruning),
    }
    for table, ablations in tables.values():
        assert len(table) == len(ablations)
        for metric in ("mase", "crps"):
            expected = [result.change(one)[metric.upper()] for one in ablations.values()]
            np.testing.assert_array_equal(table[f"{metric}_change"], expected)
            low, high = table[f"{metric}_low"], table[f"{metric}_high"]
            assert ((low <= table[f"{metric}_change"]) & (table[f"{metric}_change"] <= high)).mean() > 0.95
            assert (low < high).all()


def test_families_are_corrected_by_holm(effects: Effects) -> None:
    layers = layers_table(effects, WANTED)
    for unit, rows in layers.groupby("unit"):
        family = [a for key, a in WANTED.layers.items() if key.unit == unit]
        expected = holm(effects.of(family, "MASE").estimates().p)
        np.testing.assert_array_equal(rows["mase_p_holm"], expected)
    heads = heads_table(effects, WANTED, RANKING)
    raw = effects.of(list(WANTED.heads.values()), "CRPS").estimates().p
    np.testing.assert_array_equal(heads["crps_p_holm"], holm(raw))
    assert (heads["crps_p_holm"] >= raw).all()


def test_strategies_are_compared_with_the_mean_of_the_draws(effects: Effects) -> None:
    table = comparisons_table(effects, WANTED)
    pruning = pruning_table(effects, WANTED)
    for row in table.to_dict("records"):
        column = f"{row['metric'].lower()}_change"
        here = pruning[pruning["percent"] == row["percent"]].groupby("strategy")[column]
        logs = here.apply(lambda changes: np.log1p(changes).mean())  # geometric means over draws
        other = 0.0 if row["versus"] == "unpruned" else logs[row["versus"]]
        assert row["difference"] == pytest.approx(np.expm1(logs[row["strategy"]] - other))
        assert row["low"] <= row["difference"] <= row["high"]
        if row["versus"] == "random":
            drawn = here.get_group("random")
            assert row["draws"] == len(drawn) == RANDOM_DRAWS
            assert row["beaten"] == (drawn > here.mean()[row["strategy"]]).sum()
    for metric, rows in table.groupby("metric"):
        claimed = (rows["percent"] == PRUNED_PERCENT) & (rows["strategy"] == "high-to-low")
        claimed &= rows["versus"].isin(["random", "low-to-high"]) & (metric == "MASE")
        elsewhere = claimed | (rows["versus"] == "unpruned")
        assert (rows["p_holm"].isna() == elsewhere).all()
        assert claimed.sum() == (2 if metric == "MASE" else 0)


def test_a_model_without_middle_layers_has_no_comparisons() -> None:
    toy = Toy()
    wanted = study_plan(toy.anatomy, rank(toy), 0)
    effects = Effects(run(toy, SUITE, wanted.ablations()), SUITE, wanted.ablations())
    assert comparisons_table(effects, wanted).empty
    assert pruning_table(effects, wanted).empty


def test_heads_that_must_stay_have_intervals_of_their_windows(result: SweepResult) -> None:
    masks = calibration_masks(SUITE, fraction=CALIBRATION_FRACTION, seed=0)
    plain = heads_at_frame(result, WANTED.prefixes, max_loss=1.0, metric="MASE", calibration=masks)
    table = with_intervals(plain, result, SUITE, WANTED.prefixes, metric="MASE", calibration=masks, seed=0)
    pd.testing.assert_frame_equal(table[plain.columns], plain)
    assert (table["removed"] > 0).any()
    inside = (table["score_low"] <= table["score_change"]) & (table["score_change"] <= table["score_high"])
    assert inside.mean() > 0.9
    nothing = table[table["removed"] == 0]
    assert (nothing[["score_low", "score_high"]] == 0).all(axis=None)


def test_rank_correlation_by_hand() -> None:
    count = 12
    heads = pd.DataFrame(
        {
            "stack": "stack",
            "attention": "self",
            "stable_rank": np.arange(count),
            "stable_rank_effective": 1.0,
            "mase_change": -(np.arange(count) ** 3.0),
            "crps_change": np.tile([1.0, 2.0], 6),
        }
    )
    table = rank_correlation(heads).set_index(["variant", "metric"])
    row = table.loc["paper", "MASE"]
    assert (row["correlation"], row["low"], row["high"], row["heads"]) == pytest.approx(
        (-1, -1, row["high"], count)
    )
    assert -1 < row["high"] < -0.9
    # two of the four can be tested: the constant one has no correlation
    assert row["p_holm"] == pytest.approx(2 * row["p_value"])
    assert table.loc["effective"]["correlation"].isna().all()
