"""gluonts' evaluation of a predictor gives the MASE of `evaluate` on the same windows."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tsprune
from tests.suites import tiny
from tsprune.data import Suite
from tsprune.data.windows import cut_windows
from tsprune.errors import TspruneError
from tsprune.models.gluonts_predictor import as_gluonts

with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)  # gluonts advises a faster JSON package on import
    from gluonts.dataset.split import split
    from gluonts.ev.metrics import MASE, MeanWeightedSumQuantileLoss
    from gluonts.model import evaluate_model

HORIZON, WINDOWS, SEASON = 6, 3, 7


def series() -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    found = [np.sin(np.arange(n) / 3) * 4 + rng.random(n) + 9 for n in (61, 80, 45)]
    found[1][[4, 70]] = np.nan
    return [one.astype(np.float32) for one in found]


@pytest.mark.parametrize("name", ["tiny-timesfm", "tiny-toto"])
def test_metrics_are_those_of_evaluate(name: str) -> None:
    model = tiny(name)
    configuration, _ = cut_windows(
        series(), name="own/D/short", freq="D", horizon=HORIZON, season=SEASON, windows=WINDOWS
    )
    assert configuration is not None
    # a forecast depends on the others of its batch in the last bits
    expected = tsprune.evaluate(model, Suite("own", (configuration,)), batch_size=1).frame.iloc[0]
    # in float64, as tsprune computes metrics: gluonts computes them in the type of the targets
    start = pd.Period("2024-01-01", freq="D")
    entries = [{"target": one.astype(np.float64), "start": start} for one in series()]
    _, template = split(entries, offset=-HORIZON * WINDOWS)
    test_data = template.generate_instances(HORIZON, windows=WINDOWS, distance=HORIZON)
    predictor = as_gluonts(model, HORIZON, batch_size=1)
    logging.disable(logging.WARNING)
    try:
        levels = [level / 10 for level in range(1, 10)]
        found = evaluate_model(
            predictor,
            test_data=test_data,
            metrics=[MASE(), MeanWeightedSumQuantileLoss(quantile_levels=levels)],
            seasonality=SEASON,
        ).iloc[0]
    finally:
        logging.disable(logging.NOTSET)
    assert found["MASE[0.5]"] == pytest.approx(expected["MASE"], rel=1e-9)
    assert found["mean_weighted_sum_quantile_loss"] == pytest.approx(expected["CRPS"], rel=1e-9)


def test_entries_keep_their_order_and_names() -> None:
    """Whatever the batches; times go on where the history ends."""
    model = tiny("tiny-timesfm")
    start = pd.Period("2024-01", freq="M")
    entries = [{"target": one, "start": start, "item_id": str(i)} for i, one in enumerate(series())]
    found = list(as_gluonts(model, 4, batch_size=2).predict(iter(entries)))
    assert [one.item_id for one in found] == ["0", "1", "2"]
    assert [one.start_date for one in found] == [start + len(one) for one in series()]
    np.testing.assert_array_equal(found[2].quantile(0.5), model.forecast([series()[2]], 4).median[0])


@pytest.mark.parametrize("name", ["tiny-timesfm", "tiny-toto"])
def test_variates_are_the_last_axis(name: str) -> None:
    model, start = tiny(name), pd.Period("2024-01", freq="M")
    several = np.stack([np.sin(np.arange(40) / 3), np.arange(40) % 5]).astype(np.float32)
    entries = [{"target": several[0], "start": start}, {"target": several, "start": start}]
    single, both = as_gluonts(model, 4, batch_size=1).predict(entries)
    assert (single.quantile(0.5).shape, both.quantile(0.5).shape) == ((4,), (4, 2))
    np.testing.assert_array_equal(both.quantile(0.5), model.forecast([several], 4).median.T)
    assert both.start_date == start + 40


def test_what_is_refused(tmp_path: Path) -> None:
    predictor = as_gluonts(tiny("tiny-timesfm"), 4)
    with pytest.raises(TspruneError, match="save the model"):
        predictor.serialize(tmp_path)
    with pytest.raises(TspruneError, match="horizon"):
        as_gluonts(tiny("tiny-timesfm"), 0)
