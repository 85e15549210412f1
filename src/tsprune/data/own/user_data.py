"""Files, data frames, arrays, gluonts datasets and fev tasks of a user become suites."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pyarrow as pa

from tsprune.arguments import shown
from tsprune.data.own.data_frames import arrow_table
from tsprune.data.own.json_reader import table_of_rows
from tsprune.data.own.layouts import checked_table, groups_of_table
from tsprune.data.own.nested import is_nested, read_nested
from tsprune.data.own.own_options import DataOptions, OwnOptions
from tsprune.data.own.readers import read_any, suffix_of
from tsprune.data.own.regular_series import RegularSeries, RowGroup, regular_series
from tsprune.data.own.rolling import suite_of_series
from tsprune.data.own.steps import of_frequency
from tsprune.data.own.table_place import TablePlace
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.files import parse_json, read_text, status, user_path


def from_frame(frame: Any, *, name: str = "data", **options: Unpack[DataOptions]) -> Suite:
    """Windows of the series in a data frame.

    frame : of pandas, polars, pyarrow or whatever else narwhals knows. Long (a row per series and time), wide
        (a column or a row per series), or with a list of values per row. A pandas index is a column, too
    name : of the suite; its configurations are "<name>/<frequency>/<horizon>"
    options : the fields of `OwnOptions`: horizon, freq, season, windows, step, context, id_column,
        time_column, target

    Several `target` columns are variates of one multivariate series: models that read several variates
    together forecast them so, for others each is a series. Times without a row are missing values, counted in
    `Suite.describe()`. Series of several frequencies become one configuration each. Series that no window can
    be cut from are listed in `Suite.skipped`.

    Raises TspruneError, with the row, for a table that cannot be understood, or in more than one way.

    >>> import pandas as pd
    >>> days = pd.date_range("2024-01-01", periods=60, freq="D")
    >>> from_frame(pd.DataFrame({"ds": days, "y": range(60)}), horizon=7)
    <Suite data: 1 configuration, 1 window>
    """
    return _suite(arrow_table(frame), TablePlace("the table"), name, OwnOptions(**options))


def from_file(path: str | Path, *, name: str | None = None, **options: Unpack[DataOptions]) -> Suite:
    """Windows of the series in a file, or in all files of a folder.

    path : CSV (.csv, .tsv, .txt), Parquet, Feather or arrow, JSON (.json, .jsonl; also of gluonts), or a
        folder of these; or one that Hugging Face `datasets` saved
    name : of the suite; by default the file's without its suffix

    The rest is as in `from_frame`.
    """
    source, chosen = _existing(path), OwnOptions(**options)
    table, place = read_any(source)
    own_name = source.name.removesuffix(suffix_of(source)) if source.is_file() else source.resolve().name
    return _suite(table, place, own_name if name is None else name, chosen, freq=_gluonts_freq(source))


def whole_series(path: str | Path, options: OwnOptions) -> tuple[list[RegularSeries], list[tuple[str, str]]]:
    """The series in a file or folder, uncut, and (id, reason) of those without regular times.

    Raises TspruneError as `from_file` does.
    """
    source = _existing(path)
    table, place = read_any(source)
    return regular_series(_groups(table, place, options, _gluonts_freq(source))[0], options.freq)


def _existing(path: str | Path) -> Path:
    source = user_path(path)
    if status(source) is None:
        raise TspruneError(f"there is no data file {source}")
    return source


def from_arrays(
    arrays: Any,
    *,
    ids: Sequence[str] | None = None,
    covariates: Sequence[Any] | None = None,
    name: str = "data",
    **options: Unpack[DataOptions],
) -> Suite:
    """Windows of series without times.

    arrays : [S, T], or a list of series [T], or of multivariate ones [V, T]
    ids : names of the series; default their numbers
    covariates : past covariates of each series, [C, T] or [T]; default none

    The rest is as in `from_frame`, but `freq` is needed, and there are no columns to name.

    Raises TspruneError for anything that is not an array of numbers.
    """
    chosen, place = OwnOptions(**options), TablePlace("the arrays", "array")
    if chosen.freq is None:
        raise TspruneError("arrays have no times to infer a frequency from; give freq")
    step = of_frequency(chosen.freq)
    values = [_variates(array, place.row(index)) for index, array in enumerate(arrays)]
    labels = [str(index) for index in range(len(values))] if ids is None else [str(label) for label in ids]
    if len(labels) != len(values):
        raise TspruneError(f"{len(labels)} ids for {len(values)} arrays; they must be as many")
    past = [np.zeros((0, array.shape[-1])) for array in values]
    if covariates is not None:
        past = [_variates(array, place.row(index)) for index, array in enumerate(covariates)]
    if chosen.covariates or len(past) != len(values):
        raise TspruneError(f"give the past covariates of {len(values)} arrays as covariates=[...], one each")
    groups = []
    for index, (label, own, beside) in enumerate(zip(labels, values, past, strict=True)):
        if own.shape[-1] != beside.shape[-1]:
            raise TspruneError(
                f"{place.row(index)}: {own.shape[-1]} steps, and past covariates of {beside.shape[-1]}"
            )
        columns = {str(row): each for row, each in enumerate(np.concatenate([own, beside]))}
        group = RowGroup(label, columns, place, row=index, step=step, variates=True)
        groups.append(dataclasses.replace(group, covariates=tuple(columns)[len(own) :]))
    return _cut(groups, name, chosen, "arrays")


def _variates(array: Any, where: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    try:
        values = np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError):
        raise TspruneError(f"{where}: {shown(array)} is not an array of numbers") from None
    if values.ndim not in (1, 2) or not values.size:
        raise TspruneError(
            f"{where} has the shape {values.shape}; a series is [T], or [V, T] with several variates"
        )
    return np.atleast_2d(values)


def from_gluonts(dataset: Any, *, name: str | None = None, **options: Unpack[DataOptions]) -> Suite:
    """Windows of a gluonts dataset.

    dataset : an iterable of entries with `target` [T] or [V, T] and `start`, such as a ListDataset or
        PandasDataset; a TrainDatasets, whose test series are taken; or the path of a file of JSON lines

    The frequency is that of the entries' periods. The rest is as in `from_frame`.
    """
    if isinstance(dataset, str | Path):
        return from_file(dataset, name=name, **options)
    freq = getattr(getattr(dataset, "metadata", None), "freq", None)
    place = TablePlace("the dataset", "entry")
    entries = getattr(dataset, "test", None) or dataset
    rows = [_entry(entry, place.row(index)) for index, entry in enumerate(entries)]
    return _suite(table_of_rows(rows, place), place, name or "data", OwnOptions(**options), freq=freq)


def _entry(entry: Any, where: str) -> dict[str, Any]:
    """The row of a gluonts entry; a period's start has its frequency."""
    if not isinstance(entry, Mapping) or "target" not in entry:
        raise TspruneError(f"{where}: {shown(entry)} is not an entry with a target")
    row: dict[str, Any] = {"target": np.asarray(entry["target"], dtype=np.float64).tolist()}
    start: Any = entry.get("start")
    if hasattr(start, "to_timestamp"):
        row["freq"] = start.freqstr
        start = start.to_timestamp()
    row["start"] = None if start is None else np.datetime64(start, "us").astype(object)
    return row | ({"item_id": str(entry["item_id"])} if "item_id" in entry else {})


def from_fev(task: Any, *, name: str | None = None) -> Suite:
    """The windows of a fev task, with its own horizon, season and cutoffs; several targets are variates.

    task : a `fev.Task` (0.6 or newer), or an object with its interface: `iter_windows()`, whose windows have
        `get_input_data()` and `get_ground_truth()`; `horizon`, `seasonality`, `freq`, `id_column`,
        `timestamp_column`, `target_columns` and `task_name`

    Raises TspruneError for an object without them.
    """
    from tsprune.data.own.fev_task import suite_of_task

    return suite_of_task(task, name)


def _suite(
    table: pa.Table, place: TablePlace, name: str, options: OwnOptions, freq: str | None = None
) -> Suite:
    groups, about = _groups(table, place, options, freq)
    return _cut(groups, name, options, about)


def _groups(
    table: pa.Table, place: TablePlace, options: OwnOptions, freq: str | None
) -> tuple[Iterable[RowGroup], str]:
    """The rows of each series, and a description of the columns.

    freq : of nested rows that state none themselves
    """
    table = checked_table(table, place)
    if is_nested(table, options):
        return read_nested(table, options, place, freq)
    return groups_of_table(table, options, place)


def _cut(groups: Iterable[RowGroup], name: str, options: OwnOptions, about: str) -> Suite:
    series, skipped = regular_series(groups, options.freq)
    suite = suite_of_series(series, options, name=name, about=about, skipped=skipped)
    suite.require_windows()
    return suite


def _gluonts_freq(path: Path) -> str | None:
    """The frequency in a gluonts dataset's metadata.json, beside its file or in the folder `metadata`."""
    folder = path.resolve().parent
    for place in (folder / "metadata.json", folder.parent / "metadata" / "metadata.json"):
        if path.is_file() and place.is_file():
            try:
                freq = parse_json(read_text(place, "metadata file")).get("freq")
            except (ValueError, AttributeError, RecursionError):
                continue
            if isinstance(freq, str):
                return freq
    return None
