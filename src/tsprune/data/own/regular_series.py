"""Groups of rows become regular series, on the time steps of their frequency."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tsprune.data.own.steps import (
    FEWEST_TIMES,
    IrregularError,
    Times,
    TimeStep,
    infer,
    of_frequency,
    require_dense,
)
from tsprune.data.own.table_place import TablePlace
from tsprune.data.windows import Series
from tsprune.errors import TspruneError


@dataclasses.dataclass(frozen=True)
class RowGroup:
    """The rows of one id, in the order of time.

    values : of each column by its name, [R]
    times : int64 [R], distinct; counts unless `dated`; None if the rows are steps in order
    rows : int64 [R], places in the table; None if the group is one row of it, `row`
    step : known beforehand, with `start` (microseconds since 1970) for rows without times
    variates : whether the columns are variates of one series, at the same times; else each is a series
    covariates : names of the columns that are past covariates of all the others
    """

    id: str
    values: Mapping[str, NDArray[np.floating]]
    place: TablePlace
    times: Times | None = None
    dated: bool = True
    rows: Times | None = None
    row: int = 0
    step: TimeStep | None = None
    start: int | None = None
    variates: bool = False
    covariates: tuple[str, ...] = ()

    def where(self, index: int) -> str:
        """The place of one of the group's rows."""
        return self.place.row(self.row if self.rows is None else int(self.rows[index]))


@dataclasses.dataclass(frozen=True)
class RegularSeries:
    """One column of a group, with a value or NaN at every step.

    id : of the series; of several variates, that of the group and the column
    item, target : names of the series and of its column apart
    entity : number of the group, if the series is one of several variates; else a number of its own
    freq : pandas frequency without an anchor
    step, start : of its times; start is in microseconds since 1970, None if the times are unknown
    gaps : steps between its first and last value without a row
    covariates : past covariates at its steps, [C, T]; None without any
    """

    id: str
    freq: str
    step: TimeStep
    start: int | None
    values: Series
    gaps: int
    item: str = ""
    target: str = ""
    entity: int = 0
    covariates: Series | None = None


def regular_series(
    groups: Iterable[RowGroup], freq: str | None
) -> tuple[list[RegularSeries], list[tuple[str, str]]]:
    """All series, each at the frequency `freq` or its own, and (id, reason) of groups without one.

    Raises the first reason if no group has a frequency, and TspruneError for times that do not fit `freq`.
    """
    found: list[RegularSeries] = []
    skipped: list[tuple[str, str]] = []
    for group in groups:
        try:
            found += _numbered(_columns(group, freq), group, found[-1].entity + 1 if found else 0)
        except IrregularError as error:
            where = group.place.name if error.row is None else group.where(error.row)
            skipped.append((group.id, f"{where}: {error}"))
            if freq is not None and error.row is not None:
                raise TspruneError(f"{where}: {error}; the frequency given is {freq}") from None
    if not found and skipped:
        hint = "" if "--freq" in skipped[0][1] else "; repair the times, or give --freq"
        raise TspruneError(f"{skipped[0][1]}{hint}")
    return found, skipped


def _numbered(series: Sequence[RegularSeries], group: RowGroup, first: int) -> list[RegularSeries]:
    """The series with their entities, from the number `first` on."""
    return [
        dataclasses.replace(one, entity=first if group.variates else first + place)
        for place, one in enumerate(series)
    ]


def _columns(group: RowGroup, freq: str | None) -> list[RegularSeries]:
    step = group.step if freq is None else of_frequency(freq, group.times if group.dated else None)
    if step is None and (group.times is None or not group.dated):
        raise IrregularError("the rows have no dates to infer a frequency from; give --freq")
    if group.times is None:
        assert step is not None
        return _trimmed(group, group.values, step, group.start)
    try:
        return _on_steps(group, group.times, step)
    except IrregularError:
        kept = np.flatnonzero(np.any([np.isfinite(values) for values in group.values.values()], axis=0))
        if not FEWEST_TIMES <= len(kept) < len(group.times):
            raise
    filled = {name: values[kept] for name, values in group.values.items()}
    try:  # without the rows that hold no value, whose times may be anything
        return _on_steps(dataclasses.replace(group, values=filled), group.times[kept], step)
    except IrregularError as error:
        raise IrregularError(str(error), None if error.row is None else int(kept[error.row])) from None


def _on_steps(group: RowGroup, times: Times, step: TimeStep | None) -> list[RegularSeries]:
    if not group.dated:
        assert step is not None
        places = TimeStep("row", 1).positions(times)
    else:
        step = step or infer(times)
        places = step.positions(times)
    require_dense(places)
    start = int(times[0]) if group.dated else None
    length = int(places[-1]) + 1
    columns: dict[str, NDArray[np.floating]] = {}
    for name, values in group.values.items():
        columns[name] = values
        if length > len(values):
            columns[name] = np.full(length, np.nan, np.float32)
            columns[name][places] = _float32(values)
    return _trimmed(group, columns, step, start, places)


def _trimmed(
    group: RowGroup,
    columns: Mapping[str, NDArray[np.floating]],
    step: TimeStep,
    start: int | None,
    places: Times | None = None,
) -> list[RegularSeries]:
    """The series without the missing values at both ends, which no window can use.

    Variates are cut to where any of them has a value, as their windows begin and end together.
    """
    values = {name: _float32(column) for name, column in columns.items()}
    past = [values.pop(name) for name in group.covariates]
    spans = {name: _span(column) for name, column in values.items()}
    whole = [span for span in spans.values() if span[1]]
    if group.variates and whole:
        shared = min(first for first, _ in whole), max(stop for _, stop in whole)
        spans = {name: shared if span[1] else span for name, span in spans.items()}
    found = []
    for name, (first, stop) in spans.items():
        gaps = 0
        if places is not None and stop:
            present = np.searchsorted(places, [first, stop])
            gaps = stop - first - int(present[1] - present[0])
        begin = int(step.at(start, np.array([first]))[0]) if start is not None and first else start
        label = group.id if len(values) == 1 else "/".join(filter(None, (group.id, name)))
        item = group.id if group.variates or len(values) == 1 else label
        beside = _known(np.stack(past)[:, first:stop]) if past else None
        cut = values[name][first:stop]
        found.append(RegularSeries(label, step.freq, step, begin, cut, gaps, item, name, covariates=beside))
    return found


def _known(values: Series) -> Series:
    """With NaN for infinity."""
    return np.where(np.isinf(values), np.float32(np.nan), values)


def _span(values: Series) -> tuple[int, int]:
    """Places of the first value and after the last one; (0, 0) without any."""
    finite = np.flatnonzero(np.isfinite(values))
    return (int(finite[0]), int(finite[-1]) + 1) if finite.size else (0, 0)


def _float32(values: NDArray[np.floating]) -> Series:
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(values, dtype=np.float32)
