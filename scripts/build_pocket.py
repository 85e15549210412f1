"""Builds the embedded suite, src/tsprune/data/pocket/pocket.parquet, from packages that carry real series.

    pip install --group pocket
    python scripts/build_pocket.py

The packages' versions are recorded with every series. What is left out is printed with the reason:
series not clearly in the public domain, derived columns, and series with degenerate windows. The same
packages give the same file content; its hash is printed and recorded in tests/data/test_pocket.py.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterator
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tsprune.data.pocket import POCKET_FILE, content_hash, suite_of

MAX_BYTES = 2 * 2**20
# the shortest series must leave at least this many steps of history before its windows
MIN_HISTORY = 3
# an article whose views peak once a year or once at all has no other structure to forecast
MAX_PEAK = 50

PUBLIC_DOMAIN = "public domain (work of the US government)"
NOAA = f"{PUBLIC_DOMAIN}; NOAA"
CC0 = "CC0 1.0 (Wikimedia pageview statistics)"
CC_BY = (
    "CC BY 4.0; Metro Interstate Traffic Volume, J. Hogue, UCI Machine Learning Repository, from MN DoT data"
)


@dataclasses.dataclass(frozen=True)
class Source:
    """What all series of one dataset have in common."""

    package: str
    dataset: str
    freq: str
    domain: str
    provenance: str
    licence: str


@dataclasses.dataclass(frozen=True)
class Found:
    """One series (values with a regular time index), or the reason why it is left out."""

    source: Source
    name: str
    values: pd.Series | None
    reason: str = ""

    @property
    def identifier(self) -> str:
        return f"{self.source.dataset}/{self.source.freq}/{self.name}"


def regular(values: pd.Series, offset: str) -> pd.Series:
    """The series on a gapless time index; steps that were missing are NaN."""
    return values.astype(np.float32).asfreq(offset)


def weekly(values: pd.Series) -> pd.Series:
    """Means of the complete weeks (Monday to Sunday) of a daily series."""
    groups = values.resample("W-SUN")
    return groups.mean()[groups.count() == 7].astype(np.float32).asfreq("W-SUN")


def monthly(values: pd.Series) -> pd.Series:
    """Means of calendar months; a month without any value is NaN."""
    return values.resample("MS").mean().astype(np.float32)


# --- vega_datasets -------------------------------------------------------------------------------


def vega_csv(name: str, date: str) -> pd.DataFrame:
    resource = files("vega_datasets") / "_data" / name
    with resource.open(encoding="utf-8") as lines:
        return pd.read_csv(lines, parse_dates=[date]).set_index(date)


def city_temperatures() -> Iterator[Found]:
    source = Source(
        "vega_datasets",
        "city_temperature",
        "H",
        "Nature",
        "hourly temperature (F) of 2010, smooth as climate normals are, NOAA",
        NOAA,
    )
    for city, name in (("san_francisco", "sf-temps.csv"), ("seattle", "seattle-temps.csv")):
        yield Found(source, city, regular(vega_csv(name, "date")["temp"], "h"))


def seattle_weather() -> Iterator[Found]:
    source = Source(
        "vega_datasets", "seattle_weather", "D", "Nature", "daily weather in Seattle 2012-2015, NOAA", NOAA
    )
    table = vega_csv("seattle-weather.csv", "date")
    for column in ("precipitation", "temp_max", "temp_min", "wind"):
        yield Found(source, column, regular(table[column], "D"))


def us_employment() -> Iterator[Found]:
    source = Source(
        "vega_datasets",
        "us_employment",
        "M",
        "Econ/Fin",
        "employees by sector (thousands, seasonally adjusted) 2006-2015, Current Employment Statistics, BLS",
        f"{PUBLIC_DOMAIN}; BLS",
    )
    table = vega_csv("us-employment.csv", "month")
    for column in table.columns:
        if column == "nonfarm_change":
            yield Found(source, column, None, "derived: the month-to-month difference of nonfarm")
        else:
            yield Found(source, column, regular(table[column], "MS"))


# --- statsmodels ---------------------------------------------------------------------------------


def mauna_loa_co2() -> Iterator[Found]:
    from statsmodels.datasets import co2

    provenance = "CO2 at Mauna Loa (ppmv) 1958-2001, Keeling and Whorf 2004, CDIAC"
    table = co2.load_pandas().data["co2"]
    values = {"W": regular(table, "W-SAT"), "M": monthly(table)}
    for freq, series in values.items():
        source = Source("statsmodels", "mauna_loa_co2", freq, "Nature", provenance, "public domain")
        yield Found(source, "co2", series)


def el_nino() -> Iterator[Found]:
    from statsmodels.datasets import elnino

    source = Source(
        "statsmodels",
        "el_nino",
        "M",
        "Nature",
        "sea surface temperature (C) of region Nino 1+2, 1950-2010, ERSST.V3B, NOAA",
        NOAA,
    )
    table = elnino.load_pandas().data
    years = table.pop("YEAR").astype(int)
    index = pd.date_range(f"{years.iloc[0]}-01-01", periods=table.size, freq="MS")
    yield Found(source, "sst", pd.Series(table.to_numpy().ravel(), index).astype(np.float32))


def sunspots() -> Iterator[Found]:
    from statsmodels.datasets import sunspots

    source = Source(
        "statsmodels", "sunspots", "A", "Nature", "yearly sunspot number 1700-2008, NGDC", "public domain"
    )
    table = sunspots.load_pandas().data
    index = pd.to_datetime(table["YEAR"].astype(int).astype(str) + "-01-01")
    yield Found(source, "sunspots", regular(pd.Series(table["SUNACTIVITY"].to_numpy(), index), "YS"))


# --- autots --------------------------------------------------------------------------------------


def autots_csv(name: str) -> pd.DataFrame:
    resource = files("autots") / "datasets" / "data" / name
    with resource.open("rb") as archive:
        return pd.read_csv(archive, compression="zip")


def interstate_traffic() -> Iterator[Found]:
    table = autots_csv("traffic_hourly.zip")
    table.index = pd.DatetimeIndex(pd.to_datetime(table.pop("datetime")))
    provenance = "Interstate 94 at Minneapolis-St Paul, 2016-10 to 2018-09"
    traffic = Source(
        "autots", "interstate_traffic", "H", "Transport", f"{provenance}: vehicles an hour", CC_BY
    )
    weather = Source(
        "autots", "minneapolis_weather", "H", "Nature", f"{provenance}: temperature (K), clouds (%)", CC_BY
    )
    yield Found(traffic, "volume", regular(table["traffic_volume"], "h"))
    for column in ("temp", "clouds_all"):
        yield Found(weather, column, regular(table[column], "h"))
    for column in ("rain_1h", "snow_1h"):
        yield Found(weather, column, None, "zero nearly everywhere: its windows are constant")


def us_petroleum() -> Iterator[Found]:
    source = Source(
        "autots",
        "us_petroleum",
        "W",
        "Energy",
        "weekly petroleum statistics 2000-2020, EIA",
        f"{PUBLIC_DOMAIN}; EIA",
    )
    table = autots_csv("eia_weekly.zip")
    for name, group in table.groupby("series_id", sort=True):
        values = pd.Series(group["value"].to_numpy(), pd.DatetimeIndex(group["datetime"]))
        yield Found(source, str(name), regular(values, "W-FRI"))


def us_finance_monthly() -> Iterator[Found]:
    public = {
        "EXCAUS": "Canadian dollars to one US dollar, Board of Governors, H.10",
        "EXCHUS": "Chinese yuan to one US dollar, Board of Governors, H.10",
        "EXUSEU": "US dollars to one euro, Board of Governors, H.10",
        "GS10": "10-year Treasury constant maturity rate, Board of Governors, H.15",
        "MCOILWTICO": "crude oil price (WTI, Cushing), EIA",
    }
    for name, group in autots_csv("fred_monthly.zip").groupby("series_id", sort=True):
        what = public.get(str(name), "")
        source = Source(
            "autots",
            "us_finance",
            "M",
            "Econ/Fin",
            f"{what}, through FRED",
            f"{PUBLIC_DOMAIN}; Federal Reserve",
        )
        if what:
            values = pd.Series(group["value"].to_numpy(), pd.DatetimeIndex(group["datetime"]))
            yield Found(source, str(name), regular(values, "MS"))
        else:
            yield Found(source, str(name), None, "not clearly in the public domain")


def autots_daily() -> Iterator[Found]:
    table = autots_csv("holidays.zip")
    table.index = pd.DatetimeIndex(pd.to_datetime(table.pop("datetime")))
    weather = Source("autots", "syracuse_weather", "D", "Nature", "station USW00014771 2017-2024, NOAA", NOAA)
    finance = Source(
        "autots",
        "us_finance",
        "D",
        "Econ/Fin",
        "Board of Governors, H.10 and H.15, 2017-2024, through FRED; no value on days without trading",
        f"{PUBLIC_DOMAIN}; Federal Reserve",
    )
    for column in table.columns:
        if column.startswith("wiki_"):
            yield from pageviews(column.removeprefix("wiki_"), table[column])
        elif column in ("SP500", "T5YIE"):
            yield Found(finance, column, None, "not clearly in the public domain")
        else:
            source = weather if column.startswith("USW") else finance
            yield Found(source, column, regular(table[column], "D"))


def pageviews(name: str, values: pd.Series) -> Iterator[Found]:
    provenance = "daily views of an article of the English Wikipedia 2017-2024, Wikimedia Foundation"
    for freq, series in (("D", regular(values, "D")), ("W", weekly(values))):
        source = Source("autots", "wikipedia_pageviews", freq, "Web/CloudOps", provenance, CC0)
        if name == "all":
            yield Found(
                source, name, None, "views of all articles: it would outweigh the others in every sum"
            )
        elif values.max() > MAX_PEAK * values.median():
            yield Found(source, name, None, f"a peak of more than {MAX_PEAK} medians decides every metric")
        else:
            yield Found(source, name, series)


# --- the file ------------------------------------------------------------------------------------

LOADERS: tuple[Callable[[], Iterator[Found]], ...] = (
    city_temperatures,
    interstate_traffic,
    seattle_weather,
    autots_daily,
    mauna_loa_co2,
    us_petroleum,
    us_employment,
    el_nino,
    us_finance_monthly,
    sunspots,
)


def table_of(found: list[Found]) -> pa.Table:
    """One row a series, ordered by dataset, frequency and name."""
    rows = sorted((f for f in found if f.values is not None), key=lambda f: f.identifier)
    return pa.table(
        {
            "series": [f.identifier for f in rows],
            "dataset": [f.source.dataset for f in rows],
            "freq": [f.source.freq for f in rows],
            "domain": [f.source.domain for f in rows],
            "start": [f.values.index[0].date().isoformat() for f in rows if f.values is not None],
            "values": pa.array([numbers(f) for f in rows], pa.list_(pa.float32())),
            "source": [f"{f.source.package} {version(f.source.package)}" for f in rows],
            "provenance": [f.source.provenance for f in rows],
            "licence": [f.source.licence for f in rows],
        }
    )


def numbers(found: Found) -> NDArray[np.float32]:
    """The values from the first to the last known one."""
    assert found.values is not None
    known = found.values.loc[found.values.first_valid_index() : found.values.last_valid_index()]
    return np.asarray(known.to_numpy(), dtype=np.float32)


def degenerate(table: pa.Table) -> dict[str, str]:
    """Series with a window that no metric can judge, and why."""
    reasons: dict[str, str] = {}
    for configuration in suite_of(table).configurations:
        dataset, freq, _ = configuration.name.split("/")
        names = [
            row["series"] for row in table.to_pylist() if (row["dataset"], row["freq"]) == (dataset, freq)
        ]
        for context, target, owner in zip(
            configuration.contexts, configuration.targets, configuration.series, strict=True
        ):
            known = target[np.isfinite(target)]
            season = configuration.season
            if len(known) == 0 or np.ptp(known) == 0:
                reasons[names[owner]] = "the target of a window is constant or unknown"
            elif len(context) < MIN_HISTORY * max(season, 2):
                reasons[names[owner]] = "too little history before its first window"
            elif not np.nanmax(np.abs(context[season:] - context[:-season])) > 0:
                reasons[names[owner]] = "the history of a window repeats exactly"
    return reasons


def main() -> None:
    """Builds the file and prints what is in it and what is not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", type=Path, default=POCKET_FILE)
    write([one for loader in LOADERS for one in loader()], parser.parse_args().output)


def write(found: list[Found], output: Path) -> None:
    """Writes the usable series, and prints what they are and what is left out."""
    reasons = {one.identifier: one.reason for one in found if one.values is None}
    bad = degenerate(table_of(found))
    table = table_of([one for one in found if one.identifier not in bad])
    if again := degenerate(table):
        raise SystemExit(f"dropping series moved the windows of others into trouble: {again}")
    pq.write_table(table, output, compression="zstd", compression_level=19)
    size = output.stat().st_size
    if size > MAX_BYTES:
        raise SystemExit(f"{output.name} has {size} bytes, more than {MAX_BYTES}")
    for identifier, reason in sorted((reasons | bad).items()):
        print(f"left out  {identifier}: {reason}")
    suite = suite_of(table)
    for c in suite.configurations:
        series = len(np.unique(c.series))
        longest = max(len(context) for context in c.contexts)
        print(f"{c.name:32} {series:3} series {len(c):3} windows of {c.horizon:2}, history up to {longest}")
    print(f"{len(suite.configurations)} configurations, {len(suite)} windows, {size / 1024:.0f} KiB")
    print(f"content {content_hash(table)}")


if __name__ == "__main__":
    main()
