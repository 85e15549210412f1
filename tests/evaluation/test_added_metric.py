"""A metric that another package adds goes wherever MASE and CRPS go."""

from __future__ import annotations

from operator import attrgetter

import numpy as np
import pytest

import tsprune
from tests.suites import small_suite, tiny
from tsprune.errors import TspruneError
from tsprune.evaluation import CRPS, METRICS, Metric, aggregate, evaluate, geometric_mean_ratios
from tsprune.hooks.ablation import Ablation
from tsprune.pruning.evidence import compare
from tsprune.studies.study_tables import Effects
from tsprune.sweeps import run

ND = Metric("ND", attrgetter("absolute_error_sum"), attrgetter("absolute_target_sum"))


@pytest.fixture(autouse=True)
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS._items, "ND", ND)


def test_evaluations_have_its_columns_and_mean() -> None:
    frame = evaluate(tiny("tiny-timesfm"), small_suite())
    assert frame["ND"].tolist() == frame["ND[0.5]"].tolist()
    np.testing.assert_array_equal(frame["ND_ratio"], frame["ND"] / frame["seasonal_naive_ND"])
    assert geometric_mean_ratios(frame)["ND"] == aggregate(frame["ND_ratio"])


def test_sweeps_studies_and_heads_at_measure_its_change() -> None:
    model, suite = tiny("tiny-timesfm"), small_suite()
    swept = tsprune.sweep(model, suite).frame.set_index("address")
    head = model.anatomy.components("head")[0]
    ablation = Ablation((head,))
    result = run(model, suite, [ablation])
    change = result.change(ablation)["ND"]
    assert change == swept.loc[head.address, "nd_change"] != result.change(ablation)["MASE"]
    columns = Effects(result, suite, [ablation]).columns([ablation])
    assert columns["nd_change"].tolist() == [change]
    assert columns["nd_low"][0] <= change <= columns["nd_high"][0]
    assert np.isfinite(tsprune.heads_at(model, suite, metric="ND")["score_change"]).all()


def test_comparisons_of_two_models_have_it() -> None:
    model = tiny("tiny-timesfm")
    found = compare(model, model, small_suite())
    assert found.before["ND"] == found.after["ND"]
    assert found.change["ND"].value == 0
    assert any(name.startswith("ND relative") for name in found.evidence())


def test_the_name_of_a_metric_begins_columns() -> None:
    with pytest.raises(TspruneError, match="identifier"):
        Metric("N D", CRPS.numerator, CRPS.denominator)


def test_unknown_metrics_are_named_with_those_there_are() -> None:
    with pytest.raises(TspruneError, match="unknown metric 'RMSE'; one of: MASE, CRPS, ND"):
        tsprune.heads_at(tiny("tiny-timesfm"), small_suite(), metric="RMSE")


def test_geometric_means_by_hand() -> None:
    assert aggregate([1.0, 4.0]) == pytest.approx(2.0)
    np.testing.assert_allclose(aggregate([[1.0, 2.0], [4.0, 8.0]]), [2.0, 4.0])
    assert aggregate([0.0, 4.0]) == 0
    assert np.isnan(aggregate([]))
    assert np.isnan(aggregate(np.zeros((0, 2)))).tolist() == [True, True]
