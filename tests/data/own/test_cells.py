"""Cells of tables: dates, times and numbers as people write them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from tsprune.data.own.clock import read_times
from tsprune.data.own.numeric import numbers, plain_column
from tsprune.data.own.table_place import TablePlace
from tsprune.errors import TspruneError

PLACE = TablePlace("mine.csv", "line", 2)


def times(*values: object, kind: pa.DataType | None = None) -> list[str]:
    clock = read_times(plain_column(pa.array(values, kind)), "ds", PLACE)
    return [str(pd.Timestamp(int(time), unit="us")) for time in clock.times]


@pytest.mark.parametrize(
    "text",
    [
        "2024-03-05", "2024/03/05", "2024/3/5", "20240305", "05.03.2024", "5.3.2024", "Mar 5 2024",
        "March 5, 2024", "05-Mar-24", "5 Mar 24",
        "Mar-5-2024", "5 Mar 2024", "5-Mar-2024", "5th March 2024", "Tue, 5 Mar 2024", "2024-03-05T00:00",
        "2024-03-05 00:00:00.000", "2024-03-05T00:00:00Z", "2024-W10-2", "1709596800", "1709596800000",
        "05.03.2024 00:00", "2024-03-05 12:00 AM",
    ],
)  # fmt: skip
def test_one_day(text: str) -> None:
    assert times(text) == ["2024-03-05 00:00:00"]


@pytest.mark.parametrize(
    "text",
    [
        "2024-04",
        "202404",
        "2024 Apr",
        "April 2024",
        "04/2024",
        "2024Q2",
        "2024-Q2",
        "Q2 2024",
        "2024M04",
        "2024.25",
    ],
)
def test_months_and_quarters(text: str) -> None:
    assert times(text) == ["2024-04-01 00:00:00"]


def test_types_of_arrow() -> None:
    day = pd.Timestamp("2024-03-05")
    for kind in (pa.date32(), pa.date64(), pa.timestamp("s"), pa.timestamp("ns"), pa.timestamp("us", "UTC")):
        assert times(day, kind=kind) == ["2024-03-05 00:00:00"]
    for value, kind in ((2024, pa.int16()), (2024.0, pa.float64())):
        assert times(value, kind=kind) == ["2024-01-01 00:00:00"]


def test_days_are_local_and_hours_are_universal() -> None:
    """Summer time begins in Berlin on March 31, a day of 23 hours."""
    days = pd.date_range("2024-03-30", periods=3, freq="D", tz="Europe/Berlin")
    assert times(*days, kind=pa.timestamp("us", "Europe/Berlin"))[2] == "2024-04-01 00:00:00"
    assert times(*(day.isoformat() for day in days))[2] == "2024-04-01 00:00:00"
    hours = pd.date_range("2024-03-31", periods=4, freq="h", tz="Europe/Berlin")
    expected = [f"2024-03-{hour}:00:00" for hour in ("30 23", "31 00", "31 01", "31 02")]
    assert times(*hours, kind=pa.timestamp("us", "Europe/Berlin")) == expected
    assert times(*(hour.isoformat() for hour in hours)) == expected


def test_the_order_of_day_and_month() -> None:
    assert times("01/02/2024", "13/02/2024")[0] == "2024-02-01 00:00:00"
    assert times("01/02/2024", "01/13/2024")[0] == "2024-01-02 00:00:00"
    pairs = [(month, year) for year in (2022, 2023) for month in range(1, 13)]
    expected = [f"{year}-{month:02d}-01 00:00:00" for month, year in pairs]
    assert times(*(f"01/{month:02d}/{year}" for month, year in pairs)) == expected
    assert times(*(f"{month:02d}/01/{year}" for month, year in pairs)) == expected
    with pytest.raises(TspruneError, match="the day or the month may be first"):
        times("01/01/2024", "01/02/2024", "01/03/2024")


def parsed(*words: str | None, comma: bool = False) -> list[float]:
    place = TablePlace("mine.csv", "line", 2, comma=comma)
    found: NDArray[np.float64] = numbers(plain_column(pa.array(words)), "y", place)
    return found.tolist()


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["1", "-2.5", " 3 ", "1e3", ".5", "+4"], [1, -2.5, 3, 1000, 0.5, 4]),
        (["1,5", "2", "-0,25"], [1.5, 2, -0.25]),
        (["1.234,5", "1.234", "7"], [1234.5, 1234, 7]),
        (["1,234.5", "1,234", "7"], [1234.5, 1234, 7]),
        (["1,234,567", "12"], [1234567, 12]),
        (["1 234,5", "2\u202f000,5"], [1234.5, 2000.5]),
        (["\u22121.5", "1'000"], [-1.5, 1000]),
    ],
)
def test_numbers_in_text(words: list[str], values: list[float]) -> None:
    assert parsed(*words) == values


def test_words_for_missing() -> None:
    words = ["", "NA", "n/a", "NaN", "null", "None", "-", "?", "#N/A", None]
    assert np.isnan(parsed("1", *words)).tolist() == [False] + [True] * len(words)


def test_a_semicolon_file_has_decimal_commas() -> None:
    assert parsed("1,234", comma=True) == [1.234]
    with pytest.raises(TspruneError, match="line 2: '1,234' in column y may have"):
        parsed("1,234")


def test_types_of_numbers() -> None:
    half = pa.array([np.float16(1), None], pa.float16())
    whole = [
        pa.array([1, None], kind) for kind in (pa.int8(), pa.uint64(), pa.float32(), pa.decimal128(9, 2))
    ]
    for column in (half, *whole):
        np.testing.assert_array_equal(numbers(plain_column(column), "y", PLACE), [1, np.nan])
    with pytest.raises(TspruneError, match="column y holds bool"):
        numbers(plain_column(pa.array([True])), "y", PLACE)
