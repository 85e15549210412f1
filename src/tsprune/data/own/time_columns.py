"""The columns of a table that hold times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tsprune.data.own.clock import Clock, civil, read_times
from tsprune.data.own.numeric import is_number, is_numeric, is_text
from tsprune.data.own.own_options import OwnOptions
from tsprune.data.own.steps import DAY, SECOND, Times
from tsprune.data.own.table_columns import TableColumns, counts_rows, folded, repeats
from tsprune.data.own.table_place import TablePlace
from tsprune.errors import TspruneError

# in order of preference, as in `columns.ID_NAMES`
TIME_NAMES = (
    "ds", "timestamp", "datetime", "date", "time", "period", "month", "quarter", "week", "year", "day",
    "hour", "index", "", "unnamed:0",
)  # fmt: skip


def find_times(table: TableColumns, named: OwnOptions) -> tuple[tuple[str, ...], Clock | None]:
    """The names of the columns with times, and the times of the rows; none if the rows have no times.

    Raises TspruneError, with the row, if a column of a usual name holds something that is not a time.
    """
    if named.time_column is not None:
        name = table.require(named.time_column, "--time-column")
        return (name,), read_times(table[name], name, table.place)
    taken = {named.id_column, *named.targets}
    by_name = {folded(name): name for name in reversed(list(table)) if name not in taken}
    if (parts := _year_and_part(table, by_name)) is not None:
        return parts
    candidates = [by_name[name] for name in TIME_NAMES if name in by_name]
    candidates += [
        n for n in table if n not in candidates and n not in taken and _looks_dated(table.sample(n))
    ]
    counts: tuple[tuple[str, ...], Clock | None] = ((), None)
    refused: TspruneError | None = None
    for name in sorted(candidates, key=lambda name: not pa.types.is_temporal(table.sample(name).type)):
        if pa.types.is_null(table.sample(name).type):
            continue
        try:
            clock = read_times(table[name], name, table.place)
        except TspruneError as error:
            if _looks_dated(table.sample(name)):
                raise  # times with a mistake; another column would only hide it
            refused = refused or error
            continue
        if clock.dated:
            return _with_hours(table, by_name, name, clock)
        if counts[1] is None and not counts_rows(clock.utc):
            counts = (name,), clock
    if counts[1] is None and refused is not None:
        raise refused
    return counts


def _looks_dated(column: Any) -> bool:
    """Whether a column has a type of dates, or text that begins like a date."""
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        return True
    if not is_text(column.type) or is_numeric(column):
        return False
    few = pc.drop_null(column)[:5]
    try:
        return len(few) > 0 and read_times(few, "", TablePlace("")).dated
    except TspruneError:
        return False


def _year_and_part(table: TableColumns, by_name: Mapping[str, str]) -> tuple[tuple[str, ...], Clock] | None:
    """Times from a year with a month or quarter (and a day) in columns of their own."""
    part = next((name for name in ("month", "quarter") if name in by_name), None)
    if "year" not in by_name or part is None:
        return None
    names = [by_name[name] for name in ("year", part, "day") if name in by_name]
    names = names[:2] if part == "quarter" else names
    year, month, *days = (_whole(table[name]) for name in names)
    if year is None or any(day is None for day in days):
        return None
    if month is None:
        return _year_and_word(table, names)
    day = days[0] if days and days[0] is not None else np.ones_like(year)
    times = civil(year, 3 * month - 2 if part == "quarter" else month, day)
    return None if times is None else (tuple(names), Clock(times, times))


def _year_and_word(table: TableColumns, names: Sequence[str]) -> tuple[tuple[str, ...], Clock] | None:
    """Times from a year and a month or quarter in words."""
    words = [pc.cast(table[name], pa.large_string()) for name in names[:2]]
    clock = read_times(
        pc.binary_join_element_wise(*words, pa.scalar(" ", pa.large_string())), "", table.place
    )
    return (tuple(names[:2]), clock) if len(names) == 2 else None


def _with_hours(
    table: TableColumns, by_name: Mapping[str, str], name: str, clock: Clock
) -> tuple[tuple[str, ...], Clock]:
    """Days with the hours (0 to 23, or 1 to 24) of a column of their own, if days repeat."""
    hours = _whole(table[by_name["hour"]]) if "hour" in by_name else None
    if hours is None or not repeats(clock.utc) or (clock.utc % DAY).any() or hours.min() < 0:
        return (name,), clock
    if hours.max() - min(int(hours.min()), 1) > 23:
        return (name,), clock
    times = clock.utc + (hours - (1 if hours.max() == 24 else 0)) * 3600 * SECOND
    return (name, by_name["hour"]), Clock(times, times)


def _whole(column: Any) -> Times | None:
    """Whole numbers of a column without gaps, or None."""
    if column.null_count or not (is_number(column.type) or is_text(column.type)):
        return None
    try:
        values = np.asarray(pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False))
    except pa.ArrowInvalid:
        return None
    return values.astype(np.int64) if bool((values == np.floor(values)).all()) else None
