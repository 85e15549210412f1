"""Times from any column: dates as types, text in many spellings, numbers such as 1959, 202001 or epochs."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tsprune.arguments import shown
from tsprune.data.own.date_text import ISO_PATTERN, NEARLY_ISO, ZONE_PATTERN, AmbiguousDatesError, parse_dates
from tsprune.data.own.numeric import is_number, is_text
from tsprune.data.own.steps import DAY, SECOND, Times
from tsprune.data.own.table_place import TablePlace
from tsprune.errors import TspruneError, one_line

_FIRST_YEAR, _LAST_YEAR = 1000, 2999
# epochs by their smallest and largest value (1973 to 2286), and the microseconds of one unit
_EPOCHS = ((1e8, 1e10, SECOND), (1e11, 1e13, 1000), (1e14, 1e16, 1), (1e17, 9.3e18, 0.001))


@dataclasses.dataclass(frozen=True)
class Clock:
    """The times of the rows of a table.

    utc : microseconds since 1970, int64 [R]; or counts
    wall : the same by the local clock; equal to `utc` without time zones
    dated : False if the times are counts (1, 2, 3, ...)
    """

    utc: Times
    wall: Times
    dated: bool = True

    @property
    def times(self) -> Times:
        """Local times if all are of one time of the day (days and longer), else UTC (hours and shorter)."""
        if self.wall is self.utc or not self.wall.size:
            return self.utc
        return self.wall if bool((self.wall % DAY == self.wall[0] % DAY).all()) else self.utc


def read_times(column: Any, name: str, place: TablePlace) -> Clock:
    """The times in a `plain` column.

    Raises TspruneError, with the row, for a time that is missing or cannot be read.
    """
    if column.null_count:
        row = int(pc.index(pc.is_null(column), True).as_py())
        raise TspruneError(f"{place.row(row)}: the time in column {name} is missing")
    if pa.types.is_temporal(column.type):
        return _typed(column, name, place)
    if is_number(column.type):
        return _numeric(_doubles(column), name, place)
    if not is_text(column.type):
        raise TspruneError(f"{place.name}: column {name} holds {column.type}, not times")
    try:
        return _numeric(_doubles(column), name, place)
    except pa.ArrowInvalid:
        return _text(column, name, place)


def _doubles(column: Any) -> NDArray[np.float64]:
    return np.asarray(pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False))


def _typed(column: Any, name: str, place: TablePlace) -> Clock:
    kind = column.type
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        raise TspruneError(f"{place.name}: column {name} holds {kind}, not dates and times")
    try:
        local = pc.local_timestamp(column) if getattr(kind, "tz", None) else column
        wall = pc.cast(pc.cast(local, pa.timestamp("us"), safe=False), pa.int64())
        if local is column:
            return Clock(times := np.asarray(wall), times)
        naive = pc.cast(column, pa.timestamp("us", kind.tz), safe=False)
        return Clock(np.asarray(pc.cast(naive, pa.int64())), np.asarray(wall))
    except pa.ArrowException as error:
        raise TspruneError(
            f"{place.name}: cannot read the times in {name} ({one_line(error, 120)})"
        ) from None


def _numeric(values: NDArray[np.float64], name: str, place: TablePlace) -> Clock:
    """Times from years, 195903, 19590321, epochs, decimal years (1959.25), or counts."""
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values)))
        raise TspruneError(f"{place.row(row)}: the time in column {name} is not a finite number")
    if (values == np.floor(values)).all():
        found = _whole(values)
        if found is None:
            return Clock(counts := values.astype(np.int64), counts, dated=False)
    elif ((values >= _FIRST_YEAR) & (values < _LAST_YEAR)).all():
        found = _decimal_years(values)
    else:
        row = int(np.argmax(values != np.floor(values)))
        raise TspruneError(f"{place.row(row)}: {values[row]:g} in column {name} is not a time")
    return Clock(found, found)


def _whole(values: NDArray[np.float64]) -> Times | None:
    for low, high, size in _EPOCHS:
        if ((values >= low) & (values < high)).all():
            return np.asarray((values * size).astype(np.int64))
    numbers = values.astype(np.int64)
    for digits in (1, 100, 10_000):  # YYYY, YYYYMM, YYYYMMDD
        year = numbers // digits
        month = np.ones_like(year) if digits == 1 else numbers % digits // (digits // 100)
        day = numbers % 100 if digits == 10_000 else np.ones_like(year)
        if ((year >= _FIRST_YEAR) & (year <= _LAST_YEAR)).all() and (
            found := civil(year, month, day)
        ) is not None:
            return found
    return None


def civil(year: Times, month: Times, day: Times) -> Times | None:
    """Times [R] of dates; None if one of them is not in the calendar."""
    if ((month < 1) | (month > 12) | (day < 1)).any():
        return None
    first = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
    date = first.astype("datetime64[D]") + (day - 1)
    if (date.astype("datetime64[M]") != first).any():
        return None
    return np.asarray(date.astype(np.int64) * DAY)


def _decimal_years(values: NDArray[np.float64]) -> Times:
    """Months nearest to years with a fraction: 1959.25 is April 1959."""
    months = np.round(values * 12).astype(np.int64) - 1970 * 12
    return np.asarray(months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64) * DAY)


def _text(column: Any, name: str, place: TablePlace) -> Clock:
    """Each distinct text is parsed once."""
    coded = pc.dictionary_encode(column)
    words, codes = coded.dictionary, np.asarray(coded.indices)
    offsets: Times | None = None
    if bool(pc.any(pc.match_substring_regex(words, ZONE_PATTERN)).as_py()):
        found = pc.extract_regex(words, ZONE_PATTERN)
        zones = pc.fill_null(pc.struct_field(found, "zone"), "").to_pylist()
        if "" in zones:
            row = int(np.argmax(codes == zones.index("")))
            raise TspruneError(
                f"{place.row(row)}: the time in column {name} has no time zone, others have one"
            )
        offsets = np.array([_offset(zone) for zone in zones], dtype=np.int64)
        words = pc.replace_substring_regex(words, ZONE_PATTERN, r"\1")
    wall = _dates(words, codes, name, place)
    utc = wall if offsets is None or not offsets.any() else wall - offsets
    return Clock(utc[codes], wall[codes]) if utc is not wall else Clock(found := wall[codes], found)


def _dates(words: Any, codes: NDArray[np.int64], name: str, place: TablePlace) -> Times:
    iso = words
    for form, order in NEARLY_ISO:
        iso = pc.replace_substring_regex(iso, form, order)
    if bool(pc.all(pc.match_substring_regex(iso, ISO_PATTERN)).as_py()):
        texts = np.array(iso.to_pylist(), dtype=np.str_)
        try:
            return np.asarray(texts.astype("datetime64[us]").astype(np.int64))
        except ValueError:
            pass  # a date such as February 30: found below
    texts = words.to_pylist()
    try:
        found = parse_dates(texts)
    except AmbiguousDatesError:
        raise TspruneError(
            f"{place.row(0)}: in dates such as {shown(texts[0])} the day or the month may be first; write "
            "dates as 2020-12-31"
        ) from None
    if None in found:
        bad = found.index(None)
        row = int(np.argmax(codes == bad))
        raise TspruneError(f"{place.row(row)}: {shown(texts[bad])} in column {name} is not a date or time")
    epoch, unit = dt.datetime(1970, 1, 1), dt.timedelta(microseconds=1)
    return np.array([(time - epoch) // unit for time in found if time is not None], dtype=np.int64)


def _offset(zone: str) -> int:
    """Microseconds that the local clock is ahead of UTC."""
    if zone.strip().upper() in ("Z", "UTC", "GMT"):
        return 0
    digits = "".join(filter(str.isdigit, zone)).ljust(4, "0")
    minutes = 60 * int(digits[:2]) + int(digits[2:4])
    return (-1 if "-" in zone else 1) * minutes * 60 * SECOND
