"""Tables of every layout as groups of rows: long, wide by columns, wide by rows, and lists in rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tsprune.arguments import shown
from tsprune.data.own.clock import read_times
from tsprune.data.own.columns import Columns, choose_columns
from tsprune.data.own.numeric import is_numeric, numbers
from tsprune.data.own.own_options import OwnOptions
from tsprune.data.own.regular_series import RowGroup
from tsprune.data.own.steps import Times
from tsprune.data.own.table_columns import FILE_COLUMN, TableColumns, codes_of, folded
from tsprune.data.own.table_place import TablePlace
from tsprune.errors import TspruneError

_NUMBERED = re.compile(r"([A-Za-z_ -]*?)0*(\d+)")
_FEWEST_NUMBERED = 10  # columns V1, V2, ... that are taken for time steps
MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]


def groups_of_table(table: pa.Table, named: OwnOptions, place: TablePlace) -> tuple[list[RowGroup], str]:
    """The groups of a flat table, and the columns they are made of in words.

    Raises TspruneError, with the row, for whatever has more than one meaning or none.
    """
    table = _without_empty(table, place)
    columns = TableColumns(table, place)
    if melted := _melted(columns, named):
        return melted
    chosen = choose_columns(columns, named)
    # without ids, several columns that nobody named are series of their own
    groups, dropped = _groups(columns, chosen, variates=len(named.targets) > 1 or bool(chosen.ids))
    return groups, str(chosen) + (f"; {dropped} repeated rows dropped" if dropped else "")


def checked_table(table: pa.Table, place: TablePlace) -> pa.Table:
    """The table with trimmed column names; TspruneError for two of one name, and for a table without rows."""
    names = [str(name).strip().lstrip("\ufeff") for name in table.column_names]
    for name in names:
        if names.count(name) > 1:
            raise TspruneError(f"{place.name}: two columns are named {shown(name)}; rename one")
    if not names or not table.num_rows:
        raise TspruneError(f"{place.name} has no rows")
    return table.rename_columns(names)


def _without_empty(table: pa.Table, place: TablePlace) -> pa.Table:
    """Without the empty rows at the end, which spreadsheets write."""
    height = table.num_rows
    last = TableColumns(table.slice(max(0, height - 100)), place)
    filled = np.zeros(min(height, 100), dtype=np.bool_)
    for name in last:
        if name != FILE_COLUMN:
            filled |= np.asarray(pc.is_valid(last[name]))
    if not filled.any() and height <= len(filled):
        raise TspruneError(f"{place.name} has no rows with values")
    empty = len(filled) - 1 - int(np.flatnonzero(filled)[-1]) if filled.any() else 0
    return table.slice(0, height - empty)


def _groups(columns: TableColumns, chosen: Columns, *, variates: bool) -> tuple[list[RowGroup], int]:
    """The groups of rows with one id, in the order of their first rows, and how many repeated rows went."""
    place, clock = columns.place, chosen.clock
    values = {name: numbers(columns[name], name, place) for name in (*chosen.targets, *chosen.covariates)}
    labels, codes = _labels(columns, chosen.ids)
    times = None if clock is None else clock.times
    rows = np.arange(columns.height, dtype=np.int64)
    ordered = bool((np.diff(codes) >= 0).all())
    if times is not None and not (ordered and bool(((np.diff(codes) > 0) | (np.diff(times) > 0)).all())):
        rows = np.lexsort((rows, times, codes))
    elif not ordered:
        rows = np.argsort(codes, kind="stable")
    kept = rows if times is None else rows[_first_of_each(rows, codes, times, values, labels, place)]
    if len(kept) == columns.height and bool((kept == np.arange(len(kept))).all()):
        kept_times, kept_values = times, values  # in order: views, no copies
    else:
        kept_times = None if times is None else times[kept]
        values = {name: column[kept] for name, column in values.items()}
        kept_values = values
    bounds = np.searchsorted(codes[kept], np.arange(len(labels) + 1))
    groups = [
        RowGroup(
            label,
            {name: column[start:stop] for name, column in kept_values.items()},
            place,
            times=None if kept_times is None else kept_times[start:stop],
            dated=clock is not None and clock.dated,
            rows=kept[start:stop],
            variates=variates,
            covariates=chosen.covariates,
        )
        for label, start, stop in zip(labels, bounds[:-1], bounds[1:], strict=True)
    ]
    return groups, len(rows) - len(kept)


def _labels(columns: TableColumns, ids: Sequence[str]) -> tuple[list[str], NDArray[np.int32]]:
    """Names of the ids in the order of their first rows, and the number of each row's id, [R]."""
    if not ids:
        return [""], np.zeros(columns.height, dtype=np.int32)
    texts = [_as_text(columns.labels(name)) for name in ids]
    joined = texts[0] if len(texts) == 1 else pc.binary_join_element_wise(*texts, "/")
    return pc.dictionary_encode(joined).dictionary.to_pylist(), codes_of(joined)


def _as_text(column: Any) -> Any:
    if pa.types.is_floating(column.type):
        whole = np.asarray(column)
        if bool((whole == np.floor(whole)).all()):  # whole numbers that had a gap elsewhere
            column = pc.cast(column, pa.int64())
    return column if pa.types.is_string(column.type) else pc.cast(column, pa.string())


def _first_of_each(
    rows: Times,
    codes: NDArray[np.int32],
    times: Times,
    values: dict[str, NDArray[np.float64]],
    labels: Sequence[str],
    place: TablePlace,
) -> NDArray[np.bool_]:
    """The rows to keep, bool [R]: of equal rows the first; two values at one time are an error."""
    again = (np.diff(codes[rows]) == 0) & (np.diff(times[rows]) == 0)
    keep = np.ones(len(rows), dtype=np.bool_)
    if not again.any():
        return keep
    keep[1:] = ~again
    for column in values.values():
        before, after = column[rows[:-1]], column[rows[1:]]
        differ = again & (before != after) & ~(np.isnan(before) & np.isnan(after))
        if differ.any():
            first = int(np.argmax(differ))
            label = labels[int(codes[rows[first]])]
            raise TspruneError(
                f"{place.row(rows[first + 1])}: a second value{f' of {label}' if label else ''} at the time "
                f"of {place.noun} {place.first + rows[first]}; name the columns with --id-column and "
                "--time-column, or give times with their time zone"
            )
    return keep


# --- wide by rows --------------------------------------------------------------------------------


def _melted(columns: TableColumns, named: OwnOptions) -> tuple[list[RowGroup], str] | None:
    """The groups of a table whose columns are times: dates, months of a year, or V1, V2, ...; None if not."""
    if named.targets or named.time_column or named.covariates:
        return None
    if (found := _months_of_years(columns)) is not None:
        return found
    names = [name for name in columns if name not in (named.id_column, FILE_COLUMN)]
    dates = [name for name in names if _date(name) is not None]
    numbered = (
        [] if len(dates) >= 3 else _numbered([name for name in names if is_numeric(columns.sample(name))])
    )
    steps = dates if len(dates) >= 3 and 2 * len(dates) > len(names) - 4 else numbered
    if not steps:
        return None
    times = None
    if steps is dates:
        times = read_times(pa.array(steps), "of the header", TablePlace(columns.place.name, "column"))
    matrix = np.stack([numbers(columns[name], name, columns.place) for name in steps])
    labels = _row_labels(columns, [name for name in columns if name not in steps], named)
    order = np.arange(len(steps)) if times is None else np.argsort(times.times, kind="stable")
    groups = [
        RowGroup(
            label,
            {"": matrix[order, row]},
            columns.place,
            times=None if times is None else times.times[order],
            dated=times is not None and times.dated,
            row=row,
        )
        for row, label in enumerate(labels)
    ]
    return groups, f"a series per row; times: {len(steps)} columns from {steps[0]} to {steps[-1]}"


def _date(name: str) -> object:
    try:
        return read_times(pa.array([name]), "", TablePlace("")).dated or None
    except TspruneError:
        return None


def _numbered(names: Sequence[str]) -> list[str]:
    """Columns with one prefix and the numbers n, n + 1, ...; none if they are few."""
    by_prefix: dict[str, dict[int, str]] = {}
    for name in names:
        if match := _NUMBERED.fullmatch(name):
            by_prefix.setdefault(match[1], {})[int(match[2])] = name
    most: dict[int, str] = max(by_prefix.values(), key=len, default={})
    if len(most) < _FEWEST_NUMBERED or max(most) - min(most) != len(most) - 1:
        return []
    return [most[number] for number in sorted(most)]


def _row_labels(columns: TableColumns, others: Sequence[str], named: OwnOptions) -> list[str]:
    if named.id_column is not None:
        others = [columns.require(named.id_column, "--id-column")]
    for name in others:
        if (
            len(set(labels := _as_text(columns.labels(name)).to_pylist())) == columns.height
            and None not in labels
        ):
            return [str(label) for label in labels]
    return [str(row) for row in range(columns.height)]


def _months_of_years(columns: TableColumns) -> tuple[list[RowGroup], str] | None:
    """One series from a table with a row per year and a column per month."""
    by_name = {folded(name)[:3]: name for name in columns if folded(name)[:3] in MONTHS}
    year = next((name for name in columns if folded(name) == "year"), None)
    if year is None or len(by_name) < 12 or len(columns) > 14:
        return None
    years = read_times(columns[year], year, columns.place)
    matrix = np.stack([numbers(columns[by_name[m]], by_name[m], columns.place) for m in MONTHS], axis=1)
    first = years.times.astype("datetime64[us]").astype("datetime64[M]")
    months = (first[:, None] + np.arange(12)).astype("datetime64[us]").astype(np.int64).ravel()
    order = np.argsort(months, kind="stable")
    rows = np.repeat(np.arange(columns.height), 12)
    group = RowGroup("", {"": matrix.ravel()[order]}, columns.place, times=months[order], rows=rows[order])
    return [group], f"times: {year} and the columns of its months"
