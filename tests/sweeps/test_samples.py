"""Intervals of a sweep are those of its windows' scores, whatever else was ablated."""

from __future__ import annotations

import numpy as np
import pytest

from tests.suites import small_suite, tiny
from tsprune.evaluation.changes import Scored, change
from tsprune.hooks.ablation import Ablation
from tsprune.sweeps import CLEAN, SweepResult, run
from tsprune.sweeps.samples import change_sample

MODEL = tiny("tiny-timesfm")
ABLATIONS = [Ablation((component,)) for component in MODEL.anatomy.components("mlp")]


@pytest.fixture(scope="module")
def result() -> SweepResult:
    return run(MODEL, small_suite(), ABLATIONS)


@pytest.mark.parametrize("metric", ["MASE", "CRPS"])
@pytest.mark.parametrize("masked", [False, True])
def test_values_are_the_sweeps_and_limits_those_of_one_ablation(
    result: SweepResult, metric: str, masked: bool
) -> None:
    suite = small_suite()
    masks = {c.name: np.arange(len(c)) % 3 != 0 for c in suite.configurations} if masked else None
    found = change_sample(result, suite, ABLATIONS, metric, masks=masks).estimates()  # type: ignore[arg-type]
    for column, ablation in enumerate(ABLATIONS):
        expected = result.change(ablation, masks)
        assert found.value[column] == pytest.approx(expected[metric])
        pairs = []
        for c in suite.configurations:
            rows = result.rows[c.name]
            keep = np.ones(len(rows), bool) if masks is None else masks[c.name][rows]
            before, after = (result.scores[x][c.name].statistics.select(keep) for x in (CLEAN, ablation))
            pairs.append(Scored(c.name, before, [after], c.series[rows][keep]))
        alone = change(pairs, metric)  # type: ignore[arg-type]
        assert (found.low[column], found.high[column]) == pytest.approx((alone.low, alone.high), nan_ok=True)


def test_the_unablated_model_changes_nothing(result: SweepResult) -> None:
    found = change_sample(result, small_suite(), [CLEAN], "MASE").estimate()
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_what_failed_is_nan(result: SweepResult) -> None:
    broken = SweepResult(
        result.rows, result.scores, {}, (), {(ABLATIONS[0], "first/D/short"): "RuntimeError: broken"}
    )
    found = change_sample(broken, small_suite(), ABLATIONS, "MASE")
    assert np.isnan(found.means()).tolist() == [True, False, False]
