"""Tables with a series per row, whose values are lists: those of gluonts, fev and GIFT-Eval."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tsprune.arguments import shown
from tsprune.data.arrow import bounds, is_list, variates
from tsprune.data.own.clock import Clock, read_times
from tsprune.data.own.columns import ID_NAMES, TARGET_NAMES
from tsprune.data.own.numeric import plain_column
from tsprune.data.own.own_options import OwnOptions
from tsprune.data.own.regular_series import RowGroup
from tsprune.data.own.steps import Times, TimeStep, of_frequency
from tsprune.data.own.table_columns import TableColumns, folded
from tsprune.data.own.table_place import TablePlace
from tsprune.errors import TspruneError


def is_nested(table: pa.Table, named: OwnOptions) -> bool:
    """Whether a column of values holds lists."""
    return bool(_targets(table, named))


def read_nested(
    table: pa.Table, named: OwnOptions, place: TablePlace, freq: str | None = None
) -> tuple[list[RowGroup], str]:
    """The groups of a table with a series per row, and its columns in words.

    freq : of rows that have a start and no frequency of their own

    Raises TspruneError, with the row, for whatever cannot be read.
    """
    columns = TableColumns(table, place)
    targets = _targets(table, named)
    for name in named.targets:
        columns.require(name, "--target")
    for name in named.covariates:
        columns.require(name, "--past-covariate")
    ids = _ids(columns, named)
    values = _values(columns, targets)
    past = _values(columns, named.covariates)
    times, time = _times(columns, named, (*targets, *named.covariates))
    starts = [(None, None)] * columns.height if times else _starts(columns, freq)
    groups = []
    for row, (label, own, beside) in enumerate(zip(ids, values, past, strict=True)):
        clock = times[row] if times else None
        if both := own.keys() & beside.keys():
            raise TspruneError(f"{place.name}: column {min(both)} is the target and a past covariate")
        found = own | beside
        length = len(next(iter(found.values())))
        for name, each in beside.items():
            if len(each) != length:
                raise TspruneError(f"{place.row(row)}: {len(each)} values of {name} at {length} steps")
        if clock is not None and len(clock.utc) != length:
            raise TspruneError(
                f"{place.row(row)}: {length} values at {len(clock.utc)} times; they must be equal"
            )
        group = _group(label, found, clock, starts[row], place, row)
        groups.append(dataclasses.replace(group, covariates=tuple(beside)))
    return groups, f"a series per row; times: {time or 'start and freq'}; values: {', '.join(targets)}" + (
        f"; past covariates: {', '.join(named.covariates)}" if named.covariates else ""
    )


def _group(
    label: str,
    values: dict[str, NDArray[np.float32]],
    clock: Clock | None,
    start: tuple[TimeStep | None, int | None],
    place: TablePlace,
    row: int,
) -> RowGroup:
    if clock is None:
        return RowGroup(label, values, place, row=row, step=start[0], start=start[1], variates=True)
    order = np.argsort(clock.times, kind="stable")
    times = clock.times[order]
    if (np.diff(times) == 0).any():
        raise TspruneError(f"{place.row(row)}: two values of {label} at one time")
    ordered = {name: value[order] for name, value in values.items()}
    return RowGroup(label, ordered, place, times=times, dated=clock.dated, row=row, variates=True)


def _targets(table: pa.Table, named: OwnOptions) -> tuple[str, ...]:
    """Columns that hold the lists of values."""
    lists = [
        name
        for name in table.column_names
        if is_list(kind := table.schema.field(name).type) and not pa.types.is_temporal(kind.value_type)
    ]
    if named.targets:
        return tuple(name for name in named.targets if name in lists)
    by_name = {folded(name): name for name in reversed(lists)}
    return next(((by_name[name],) for name in TARGET_NAMES if name in by_name), ())


def _ids(columns: TableColumns, named: OwnOptions) -> list[str]:
    by_name = {folded(name): name for name in reversed(list(columns))}
    name = next((by_name[name] for name in ID_NAMES if name in by_name), None)
    if named.id_column is not None:
        name = columns.require(named.id_column, "--id-column")
    if name is None:
        return [str(row) for row in range(columns.height)]
    labels = columns[name].to_pylist()
    if None in labels:
        raise TspruneError(f"{columns.place.row(labels.index(None))}: the id in column {name} is missing")
    return [str(label) for label in labels]


def _values(columns: TableColumns, targets: Sequence[str]) -> list[dict[str, NDArray[np.float32]]]:
    """The variates [T] of each row by name: the column's, or numbers if the lists hold lists."""
    found: list[dict[str, NDArray[np.float32]]] = [{} for _ in range(columns.height)]
    for name in targets:
        rows = variates(columns.place.name, 0, columns[name])
        for row, several in zip(found, rows, strict=True):
            alone = len(several) == 1
            row |= {name if alone else f"{name}{index}": value for index, value in enumerate(several)}
    for number, row in enumerate(found):
        if len({len(value) for value in row.values()}) > 1:
            raise TspruneError(
                f"{columns.place.row(number)}: the columns {', '.join(targets)} differ in length"
            )
    return found


def _times(
    columns: TableColumns, named: OwnOptions, targets: Sequence[str]
) -> tuple[list[Clock] | None, str]:
    """The times of each row's values, from a column with lists of times, if there is one."""
    names = [name for name in columns if name not in targets and _lists_times(columns, name)]
    name = named.time_column if named.time_column is not None else next(iter(names), None)
    if name is None:
        return None, ""
    column = columns[columns.require(name, "--time-column")]
    if not is_list(column.type) or column.null_count:
        raise TspruneError(f"{columns.place.name}: column {name} does not hold a list of times in every row")
    clock = read_times(plain_column(column.values), name, columns.place)
    cut = [slice(start, stop) for start, stop in itertools.pairwise(bounds(column))]
    return [Clock(clock.utc[one], clock.wall[one], clock.dated) for one in cut], name


def _lists_times(columns: TableColumns, name: str) -> bool:
    kind: Any = columns[name].type
    if not is_list(kind):
        return False
    text = pa.types.is_string(kind.value_type) and folded(name) in ("timestamp", "ds", "date", "time")
    return text or bool(pa.types.is_temporal(kind.value_type))


def _starts(columns: TableColumns, freq: str | None) -> list[tuple[TimeStep | None, int | None]]:
    """The step and the first time of each row."""
    starts: Times | None = None
    if "start" in columns and not columns["start"].null_count:
        starts = read_times(columns["start"], "start", columns.place).utc
    freqs = columns["freq"].to_pylist() if "freq" in columns else [freq] * columns.height
    found: list[tuple[TimeStep | None, int | None]] = []
    for row, each in enumerate(freqs):
        if each is not None and not isinstance(each, str):
            raise TspruneError(f"{columns.place.row(row)}: {shown(each)} is not a frequency")
        start = None if starts is None else int(starts[row])
        step = None if each is None else of_frequency(each, None if start is None else np.array([start]))
        found.append((step, start))
    return found
