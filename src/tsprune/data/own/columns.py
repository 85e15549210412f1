"""The columns of a table that hold ids, times and values, by the field's conventions or as named."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tsprune.data.own.clock import Clock, civil, read_times
from tsprune.data.own.numeric import is_number, is_numeric, is_text, numbers, plain_column
from tsprune.data.own.own_options import OwnOptions
from tsprune.data.own.steps import Times
from tsprune.data.own.table_place import TablePlace
from tsprune.errors import TspruneError

_SAMPLE_ROWS = 2000
FILE_COLUMN = "\0file"  # of the rows of a folder's files

# in order of preference; names are compared in lower case, without spaces, dashes and underscores
ID_NAMES = (
    "uniqueid",
    "itemid",
    "seriesid",
    "tsid",
    "timeseriesid",
    "seriesname",
    "id",
    "series",
    "item",
    "key",
)
TIME_NAMES = (
    "ds", "timestamp", "datetime", "date", "time", "period", "month", "quarter", "week", "year", "day",
    "hour", "index", "", "unnamed:0",
)  # fmt: skip
TARGET_NAMES = ("y", "target", "value", "values", "x")
_COUNTERS = (
    "",
    "unnamed:0",
    "index",
    "rownames",
    "row",
    "rowid",
    "obs",
    "observation",
    "no",
    "nr",
    "#",
    "time",
    "t",
    "step",
)


@dataclasses.dataclass(frozen=True)
class Columns:
    """Columns that hold ids (none: one id), times and values.

    time : names of the columns with times: none, one, or a year with a month or quarter
    clock : the times of the rows; None if the rows are in order
    """

    ids: tuple[str, ...]
    time: tuple[str, ...]
    targets: tuple[str, ...]
    clock: Clock | None

    def __str__(self) -> str:
        shown = {"": "(unnamed)", FILE_COLUMN: "the file"}
        ids, time = (
            " and ".join(shown.get(n, n) for n in names) or "none" for names in (self.ids, self.time)
        )
        few = len(self.targets) < 9
        return f"ids: {ids}; times: {time}; values: " + (
            ", ".join(self.targets) if few else f"{len(self.targets)} columns"
        )


def folded(name: str) -> str:
    """A column's name as conventions are compared.

    >>> folded("Unique_ID ")
    'uniqueid'
    """
    return re.sub(r"[\s_-]", "", name).lower()


class TableColumns(Mapping[str, Any]):
    """The `plain` columns of an arrow table, each made when it is first used."""

    def __init__(self, table: pa.Table, place: TablePlace) -> None:
        self.place = place
        self._table = table
        self._plain: dict[str, Any] = {}
        self._labels: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._plain:
            self._plain[name] = plain_column(self._table.column(name))
        return self._plain[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table.column_names)

    def __len__(self) -> int:
        return int(self._table.num_columns)

    def sample(self, name: str) -> Any:
        """The first rows of a plain column, which tell its kind; all rows if these hold no value."""
        first = plain_column(self._table.column(name).slice(0, _SAMPLE_ROWS))
        return first if first.null_count < len(first) else self[name]

    def labels(self, name: str) -> Any:
        """A column of ids: "NA" and other words for missing numbers are names."""
        if name not in self._labels:
            coded = self._table.column(name).dictionary_encode().combine_chunks()
            self._labels[name] = pc.take(plain_column(coded.dictionary, nulls=("",)), coded.indices)
        return self._labels[name]

    @property
    def height(self) -> int:
        """Number of rows."""
        return int(self._table.num_rows)

    def require(self, name: str, option: str) -> str:
        """`name`, if there is such a column; TspruneError, with the columns that are close, if not."""
        if name in self:
            return name
        names = [other for other in self if other != FILE_COLUMN]
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or names[:8]
        raise TspruneError(
            f"{self.place.name} has no column {name!r} for {option}; columns: {', '.join(near)}"
        )


def choose_columns(table: TableColumns, named: OwnOptions) -> Columns:
    """The columns of a long table, or of a wide one with a column per series.

    Raises TspruneError if a named column is missing, or several could be meant.
    """
    for name in named.targets:
        table.require(name, "--target")
    time, clock = _time(table, named)
    ids = _ids(table, named, time, clock)
    targets = named.targets or _targets(table, ids, time, dated=clock is not None and clock.dated)
    for name in ids:
        if table.labels(name).null_count:
            row = int(pc.index(pc.is_null(table.labels(name)), True).as_py())
            raise TspruneError(f"{table.place.row(row)}: the id in column {name} is missing")
    return Columns(ids, time, targets, clock)


# --- times ---------------------------------------------------------------------------------------


def _time(table: TableColumns, named: OwnOptions) -> tuple[tuple[str, ...], Clock | None]:
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
            refused = refused or error
            continue
        if clock.dated:
            return (name,), clock
        if counts[1] is None and not _counts_rows(clock.utc):
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
    names = tuple(by_name[name] for name in ("year", part, "day") if name in by_name)
    if part == "quarter":
        names = names[:2]
    values = [_whole(table[name]) for name in names]
    if any(value is None for value in values):
        return None
    year, month, *day = (value for value in values if value is not None)
    month = 3 * month - 2 if part == "quarter" else month
    times = civil(year, month, day[0] if day else np.ones_like(year))
    return None if times is None else (names, Clock(times, times))


def _whole(column: Any) -> Times | None:
    """Whole numbers of a column without gaps, or None."""
    if column.null_count or not (is_number(column.type) or is_text(column.type)):
        return None
    try:
        values = np.asarray(pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False))
    except pa.ArrowInvalid:
        return None
    return values.astype(np.int64) if bool((values == np.floor(values)).all()) else None


def _counts_rows(values: Times) -> bool:
    return len(values) > 1 and values[0] in (0, 1) and bool((np.diff(values) == 1).all())


# --- ids -----------------------------------------------------------------------------------------


def _ids(
    table: TableColumns, named: OwnOptions, time: tuple[str, ...], clock: Clock | None
) -> tuple[str, ...]:
    if named.id_column is not None:
        return (table.require(named.id_column, "--id-column"),)
    taken = {*time, *named.targets, FILE_COLUMN}
    by_name = {folded(name): name for name in reversed(list(table)) if name not in taken}
    conventional = [by_name[name] for name in ID_NAMES if name in by_name]
    repeating = next(((name,) for name in conventional if _repeats(table.labels(name))), _file(table))
    if clock is None:
        return repeating
    if not _repeats(clock.utc):
        return repeating if repeating != _file(table) else ()
    texts = [n for n in table if n not in taken and n not in conventional and _labels(table, n)]
    several = [tuple(texts), (*texts, FILE_COLUMN)] if len(texts) > 1 else []
    choices = [*((name,) for name in (*conventional, *texts)), *several]
    choices = [*_file_choices(table), *choices, *((FILE_COLUMN, *names) for names in choices[:1])]
    for names in choices:
        if all(name in table for name in names) and _unique(table, names, clock.utc):
            return names
    return repeating


def _file(table: TableColumns) -> tuple[str, ...]:
    return (FILE_COLUMN,) if FILE_COLUMN in table else ()


def _file_choices(table: TableColumns) -> list[tuple[str, ...]]:
    return [_file(table)] if FILE_COLUMN in table else []


def _labels(table: TableColumns, name: str) -> bool:
    """Whether a column may hold names of series: text that repeats, and not of numbers."""
    first = table.sample(name)
    return is_text(first.type) and not is_numeric(first) and _repeats(table.labels(name))


def _repeats(values: Any) -> bool:
    return bool(pc.count_distinct(values).as_py() < len(values))


def _unique(table: TableColumns, names: Iterable[str], times: Times) -> bool:
    """Whether no time repeats within an id."""
    keys = [codes_of(table.labels(name)) for name in names]
    if bool(((np.diff(keys[0]) > 0) | ((np.diff(keys[0]) == 0) & (np.diff(times) > 0))).all()):
        return True  # in order, without a sort that takes memory
    sorted_by: list[NDArray[Any]] = [times, *keys]
    order = np.lexsort(sorted_by)
    same = np.diff(times[order]) == 0
    for key in keys:
        same &= np.diff(key[order]) == 0
    return not same.any()


def codes_of(column: Any) -> NDArray[np.int32]:
    """Numbers [R] of a column's distinct values, in the order of their first rows; -1 of a null."""
    codes = pc.fill_null(pc.dictionary_encode(column).indices, -1)
    return np.asarray(codes.to_numpy(zero_copy_only=False))


# --- values --------------------------------------------------------------------------------------


def _targets(
    table: TableColumns, ids: tuple[str, ...], time: tuple[str, ...], *, dated: bool
) -> tuple[str, ...]:
    others = [name for name in table if name not in (*ids, *time, FILE_COLUMN)]
    numeric = [
        name for name in others if is_numeric(first := table.sample(name)) and len(first) > first.null_count
    ]
    by_name = {folded(name): name for name in reversed(numeric)}
    known = next((by_name[name] for name in TARGET_NAMES if name in by_name), None)
    if known is not None:
        return (known,)
    found = [
        name for name in numeric if not (folded(name) in (*_COUNTERS, *ID_NAMES) and _is_counter(table, name))
    ]
    if not found:
        listed = ", ".join(others[:8]) or "none"
        raise TspruneError(
            f"{table.place.name}: no column holds numbers; columns besides ids and times: {listed}"
        )
    if ids and ids != (FILE_COLUMN,) and len(found) > 1:
        raise TspruneError(
            f"{table.place.name}: several columns hold numbers ({', '.join(found[:8])}); name those to "
            "forecast with --target"
        )
    return tuple(found)


def _is_counter(table: TableColumns, name: str) -> bool:
    values = numbers(table[name], name, table.place)
    return bool(np.isfinite(values).all()) and _counts_rows(values.astype(np.int64))
