"""The picture of a forecast with and without components shows the numbers of both."""

from __future__ import annotations

import numpy as np
import pytest

import tsprune
from tests.suites import tiny


def test_both_forecasts_are_drawn() -> None:
    model, series, removed = tiny("tiny-timesfm"), np.sin(np.arange(90.0)), "stack.1.self.head.*"
    traces = {t.name: t for t in tsprune.plot_ablation(model, series, removed, horizon=5).data if t.name}
    before = model.forecast([series], 5)
    with tsprune.ablate(model, removed):
        after = model.forecast([series], 5)
    np.testing.assert_array_equal(traces["history"].y, series[-48:])
    np.testing.assert_array_equal(traces["median"].y, before.median[0])
    np.testing.assert_array_equal(traces[f"median without {removed}"].y, after.median[0])
    np.testing.assert_array_equal(traces[f"0.1 to 0.9 without {removed}"].y, after.quantiles[0, 0])
    assert not np.array_equal(before.median, after.median)


def test_components_that_are_not_there() -> None:
    with pytest.raises(tsprune.TspruneError, match=r"stack\.9"):
        tsprune.plot_ablation(tiny("tiny-timesfm"), range(50), "stack.9", horizon=5)
