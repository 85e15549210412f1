"""The columns of a table that hold ids, times and values, by the field's conventions or as named."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tsprune.data.own.clock import Clock
from tsprune.data.own.numeric import is_numeric, is_text, numbers
from tsprune.data.own.own_options import OwnOptions
from tsprune.data.own.steps import Times
from tsprune.data.own.table_columns import FILE_COLUMN, TableColumns, codes_of, counts_rows, folded, repeats
from tsprune.data.own.time_columns import find_times
from tsprune.errors import TspruneError

# in order of preference; names are compared in lower case, without spaces, dashes and underscores
ID_NAMES = (
    "uniqueid", "itemid", "seriesid", "tsid", "timeseriesid", "seriesname", "id", "series", "item", "key",
)  # fmt: skip
TARGET_NAMES = ("y", "target", "value", "values")
_INDEX = ("", "unnamed:0", "index", "level0")
_COUNTERS = ("rownames", "row", "rowid", "obs", "observation", "no", "nr", "#", "time", "t", "step")
_REPEATED = 0.1  # share of rows at a time that another row has
_ID_ENDINGS = (
    "id", "nbr", "number", "code", "store", "shop", "product", "sku", "sensor", "meter", "station",
    "customer", "device", "location", "region", "country", "department", "dept", "family", "brand",
    "warehouse",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Columns:
    """Columns that hold ids (none: one id), times, values and past covariates.

    time : names of the columns with times: none, one, a year with a month or quarter, or a day with an hour
    clock : the times of the rows; None if the rows are in order
    """

    ids: tuple[str, ...]
    time: tuple[str, ...]
    targets: tuple[str, ...]
    clock: Clock | None
    covariates: tuple[str, ...] = ()

    def __str__(self) -> str:
        shown = {"": "(unnamed)", FILE_COLUMN: "the file"}
        ids, time = (
            " and ".join(shown.get(n, n) for n in names) or "none" for names in (self.ids, self.time)
        )
        few = len(self.targets) < 9
        values = ", ".join(self.targets) if few else f"{len(self.targets)} columns"
        past = f"; past covariates: {', '.join(self.covariates)}" if self.covariates else ""
        return f"ids: {ids}; times: {time}; values: {values}{past}"


def choose_columns(table: TableColumns, named: OwnOptions) -> Columns:
    """The columns of a long table, or of a wide one with a column per series.

    Raises TspruneError if a named column is missing, or several could be meant.
    """
    for name in named.targets:
        table.require(name, "--target")
    for name in named.covariates:
        table.require(name, "--past-covariate")
    time, clock = find_times(table, named)
    ids = _ids(table, named, time, clock)
    for name in set(named.covariates) & {*ids, *time}:
        raise TspruneError(
            f"{table.place.name}: column {name} holds ids or times, so it cannot be a past covariate"
        )
    targets = named.targets or _targets(table, ids, (*time, *named.covariates))
    for name in ids:
        if table.labels(name).null_count:
            row = int(pc.index(pc.is_null(table.labels(name)), True).as_py())
            raise TspruneError(f"{table.place.row(row)}: the id in column {name} is missing")
    return Columns(ids, time, targets, clock, named.covariates)


# --- ids -----------------------------------------------------------------------------------------


def _ids(
    table: TableColumns, named: OwnOptions, time: tuple[str, ...], clock: Clock | None
) -> tuple[str, ...]:
    if named.id_column is not None:
        return (table.require(named.id_column, "--id-column"),)
    taken = {*time, *named.targets, *named.covariates, FILE_COLUMN}
    by_name = {folded(name): name for name in reversed(list(table)) if name not in taken}
    conventional = [by_name[name] for name in ID_NAMES if name in by_name]
    repeating = next(((name,) for name in conventional if repeats(table.labels(name))), _file(table))
    if clock is None:
        return repeating
    if not repeats(clock.utc):
        return repeating if repeating != _file(table) else ()
    for names in _choices(table, conventional, taken, clock):
        if _unique(table, names, clock.utc):
            return names
    return repeating


def _choices(
    table: TableColumns, conventional: Sequence[str], taken: Iterable[str | None], clock: Clock
) -> Iterator[tuple[str, ...]]:
    """Columns that may hold the ids together, the likeliest first.

    Columns of other names come into question only if many times repeat: a single second value at a time is
    rather a mistake than another series.
    """
    file = _file(table)
    yield from (names for names in (file, *((name,) for name in conventional)) if names)
    distinct = pc.count_distinct(clock.utc).as_py()
    few = len(clock.utc) - distinct < _REPEATED * len(clock.utc)
    labels = [] if few else [n for n in table if n not in (*taken, *conventional) and _labels(table, n)]
    yield from ((name,) for name in labels)
    everything = (*file, *conventional[:1], *labels)
    yield from (tuple(labels), (*file, *conventional[:1]), everything) if len(everything) > 1 else ()


def _file(table: TableColumns) -> tuple[str, ...]:
    return (FILE_COLUMN,) if FILE_COLUMN in table else ()


def _labels(table: TableColumns, name: str) -> bool:
    """Whether a column may hold names of series: text that repeats, or whole numbers with such a heading."""
    first = table.sample(name)
    text = is_text(first.type) and not is_numeric(first)
    headed = folded(name).endswith(_ID_ENDINGS) and not pa.types.is_floating(first.type)
    return (text or headed) and repeats(table.labels(name))


def _unique(table: TableColumns, names: Sequence[str], times: Times) -> bool:
    """Whether no time repeats within an id."""
    if not names:
        return False
    keys = [codes_of(table.labels(name)) for name in names]
    if bool(((np.diff(keys[0]) > 0) | ((np.diff(keys[0]) == 0) & (np.diff(times) > 0))).all()):
        return True  # in order, without a sort that takes memory
    sorted_by: list[NDArray[Any]] = [times, *keys]
    order = np.lexsort(sorted_by)
    same = np.diff(times[order]) == 0
    for key in keys:
        same &= np.diff(key[order]) == 0
    return not same.any()


# --- values --------------------------------------------------------------------------------------


def _targets(table: TableColumns, ids: tuple[str, ...], time: tuple[str, ...]) -> tuple[str, ...]:
    others = [name for name in table if name not in (*ids, *time, FILE_COLUMN)]
    numeric = [
        name for name in others if is_numeric(first := table.sample(name)) and len(first) > first.null_count
    ]
    by_name = {folded(name): name for name in reversed(numeric)}
    known = next((by_name[name] for name in TARGET_NAMES if name in by_name), None)
    if known is not None:
        return (known,)
    found = [
        name
        for name in numeric
        if folded(name) not in _INDEX
        and not (folded(name) in (*_COUNTERS, *ID_NAMES) and _is_counter(table, name))
    ]
    words = next((name for name in others if not numeric and folded(name) in TARGET_NAMES), None)
    if words is not None:
        return (words,)  # reading it names the row
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
    return bool(np.isfinite(values).all()) and counts_rows(values.astype(np.int64))
