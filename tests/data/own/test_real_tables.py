"""Tables that packages ship are understood without a word about them, and scored as gluonts scores them."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from gluonts.dataset.split import split as gluonts_split
from gluonts.ev.metrics import MASE, MeanWeightedSumQuantileLoss
from numpy.typing import NDArray

import tsprune
from tsprune.data import Suite, from_file, from_frame
from tsprune.evaluation.baseline import naive_quantiles

with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)  # gluonts advises a faster JSON package on import
    from gluonts.model import evaluate_forecasts
    from gluonts.model.forecast import QuantileForecast

VEGA, STATS, SKTIME = "vega_datasets", "statsmodels", "sktime"
PLOTLY, MATPLOTLIB = "plotly", "matplotlib"

# package, file, frequency, series, columns in words
TABLES = {
    "hours": (VEGA, "_data/sf-temps.csv", "h", 1, "times: date; values: temp"),
    "hours with a gap": (VEGA, "_data/seattle-temps.csv", "h", 1, "times: date; values: temp"),
    "days, a label beside": (VEGA, "_data/seattle-weather.csv", "D", 4, "ids: none; times: date"),
    "months of shares": (VEGA, "_data/stocks.csv", "ME", 5, "ids: symbol; times: date; values: price"),
    "years": (VEGA, "_data/iowa-electricity.csv", "YE", 3, "ids: source; times: year"),
    "months, wide": (VEGA, "_data/us-employment.csv", "ME", 23, "times: month; values: 23 columns"),
    "JSON": (VEGA, "_data/crimea.json", "ME", 3, "times: date; values: wounds, other, disease"),
    "working days": (VEGA, "_data/ohlc.json", "B", 5, "times: date; values: open"),
    "years of a label each": (VEGA, "_data/driving.json", "YE", 2, "times: year; values: miles, gas"),
    "dates as numbers": (STATS, "datasets/co2/co2.csv", "W", 1, "times: date; values: co2"),
    "years as numbers": (STATS, "datasets/sunspots/sunspots.csv", "YE", 1, "values: SUNACTIVITY"),
    "year and quarter": (STATS, "datasets/macrodata/macrodata.csv", "QE", 12, "times: year and quarter"),
    "quarters in words": (STATS, "datasets/danish_data/data.csv", "QE", 5, "times: period"),
    "months in words": (STATS, "datasets/elec_equip/elec_equip.csv", "ME", 1, "times: DATE"),
    "a column per month": (STATS, "datasets/elnino/elnino.csv", "ME", 1, "the columns of its months"),
    "a column per year": (STATS, "datasets/fertility/fertility.csv", "YE", 209, "a series per row"),
    "firms": (STATS, "datasets/grunfeld/grunfeld.csv", "YE", 11, "ids: firm; times: year; values: value"),
    "a counter beside": (STATS, "datasets/longley/longley.csv", "YE", 6, "times: YEAR; values: TOTEMP"),
    "months without a day": (SKTIME, "datasets/data/Airline/Airline.csv", "ME", 1, "values: Passengers"),
    "year, month in words": (SKTIME, "datasets/data/PBS_dataset/PBS_dataset.csv", "ME", 1, "values: Scripts"),
    "half hours in UTC": (SKTIME, "datasets/data/solar/solar.csv", "30min", 1, "times: datetime_gmt"),
    "quarters beside a counter": (SKTIME, "datasets/data/Uschange/Uschange.csv", "QE", 5, "times: Quarter"),
    "times without a name": (SKTIME, "datasets/data/seatbelts/seatbelts.csv", "ME", 2, "values: KSI, label"),
    "years, a number as name": (SKTIME, "datasets/data/Lynx/Lynx.csv", "YE", 1, "values: 0"),
    "weeks, compressed": (PLOTLY, "package_data/datasets/stocks.csv.gz", "W", 6, "values: GOOG, AAPL"),
    "days backwards": (MATPLOTLIB, "mpl-data/sample_data/msft.csv", "B", 6, "times: Date; values: Open"),
}  # fmt: skip


def path_of(package: str, file: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None or not (path := Path(spec.origin).parent / file).is_file():
        pytest.skip(f"{package} with {file} is not installed")
    return path


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_understood(name: str, tmp_path: Path) -> None:
    package, file, freq, series, words = TABLES[name]
    path = path_of(package, file)
    suite = from_file(path, horizon=3)
    (c,) = suite.configurations
    stem = path.name.partition(".")[0]
    assert (c.name, len(np.unique(c.series))) == (f"{stem}/{freq}/3", series)
    assert words in suite.about
    if path.suffix in (".csv", ".gz"):
        frame = pd.read_csv(path, float_precision="round_trip", encoding="utf-8-sig")
        frame.to_parquet(tmp_path / "other.parquet")
        for again in (
            from_frame(frame, name=stem, horizon=3),
            from_file(tmp_path / "other.parquet", name=stem, horizon=3),
        ):
            assert again.fingerprint == suite.fingerprint


# the same series by pandas alone
PLAIN: dict[str, Callable[[pd.DataFrame], list[pd.Series[float]]]] = {
    "hours": lambda frame: [frame.set_index(pd.to_datetime(frame["date"]))["temp"].asfreq("h")],
    "days, a label beside": lambda frame: [frame[name] for name in frame.columns[1:5]],
    "months of shares": lambda frame: [rows["price"] for _, rows in frame.groupby("symbol", sort=False)],
    "months, wide": lambda frame: [frame[name] for name in frame.columns[1:]],
    "year and quarter": lambda frame: [frame[name] for name in frame.columns[2:]],
    "years as numbers": lambda frame: [frame["SUNACTIVITY"]],
    "half hours in UTC": lambda frame: [frame["solar_gen"]],
    "weeks, compressed": lambda frame: [frame[name] for name in frame.columns[1:]],
}


@pytest.fixture
def _quiet_gluonts() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def gluonts_scores(suite: Suite, series: list[NDArray[np.float64]], windows: int) -> tuple[float, float]:
    """MASE and CRPS of Seasonal Naive by gluonts, which cuts the windows itself."""
    (c,) = suite.configurations
    period = pd.Period("2000-01-01", "D")
    entries = [{"item_id": str(i), "start": period, "target": values} for i, values in enumerate(series)]
    _, template = gluonts_split(entries, offset=-windows * c.horizon)
    data = template.generate_instances(c.horizon, windows=windows, distance=c.horizon)
    for pair, context in zip(data.input, c.contexts, strict=True):
        np.testing.assert_array_equal(pair["target"], context)
    levels = [level / 10 for level in range(1, 10)]
    forecasts = [
        QuantileForecast(window, period, [str(level) for level in levels])
        for window in naive_quantiles(c.contexts, horizon=c.horizon, season=c.season)
    ]
    metrics = [MASE(), MeanWeightedSumQuantileLoss(quantile_levels=levels)]
    found = evaluate_forecasts(
        forecasts, test_data=data, metrics=metrics, axis=None, mask_invalid_label=True, seasonality=c.season
    )
    return tuple(found.iloc[0])


@pytest.mark.usefixtures("_quiet_gluonts")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", PLAIN)
def test_scores_equal_gluonts(name: str) -> None:
    path = path_of(*TABLES[name][:2])
    suite = from_file(path, horizon=7, windows=3)
    series = [values.to_numpy(np.float32).astype(np.float64) for values in PLAIN[name](pd.read_csv(path))]
    mase, crps = gluonts_scores(suite, series, windows=3)
    ours = tsprune.evaluate("seasonal-naive", suite).frame.iloc[0]
    assert ours["MASE"] == pytest.approx(mase, rel=1e-9)
    assert ours["CRPS"] == pytest.approx(crps, rel=1e-9)
