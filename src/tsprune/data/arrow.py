"""Series from the arrow files that Hugging Face `datasets` saves, mapped into memory.

A dataset is a folder of data-*.arrow files. Column `freq` holds a pandas frequency, the same in every row;
column `target` a list of numbers (one variate), or a list of such lists (several, of one length). Other
columns are not read. Anything else is a TspruneError that names the folder and the row, if there is one,
counted from 0 over all files.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tsprune.data.windows import Series, parse_frequency
from tsprune.errors import TspruneError, one_line
from tsprune.files import existing_file, parse_json, read_text

AGAIN = "download this dataset again"


def read_series(folder: Path) -> tuple[str, list[list[Series]]]:
    """Frequency of the first row, and per row its variates as float32 views of the mapped files.

    Raises TspruneError for a dataset that is damaged or of another format.
    """
    freq: str | None = None
    rows: list[list[Series]] = []
    for path in dataset_files(folder):
        freq = _read_file(folder, existing_file(path, "data file"), freq, rows)
    if freq is None:
        raise TspruneError(f"{folder} holds no series; {AGAIN}")
    return freq, rows


def _read_file(folder: Path, path: Path, freq: str | None, rows: list[list[Series]]) -> str | None:
    """Appends the file's rows to `rows`, and returns the frequency."""
    try:
        for batch in record_batches(path):
            if missing := {"freq", "target"} - set(batch.schema.names):
                raise TspruneError(f"{path} has no column {', '.join(sorted(missing))}; is it GIFT-Eval's?")
            freq = _frequency(folder, len(rows), batch.column("freq"), freq)
            rows += variates(folder, len(rows), batch.column("target"))
    except TspruneError:
        raise
    except Exception as error:  # arrow raises many kinds for damaged bytes
        raise TspruneError(f"cannot read {path} ({one_line(error, 200)}); {AGAIN}") from None
    return freq


def dataset_files(folder: Path) -> list[Path]:
    """The dataset's arrow files in order: those listed in state.json, or those present without one."""
    state = folder / "state.json"
    if not state.exists():
        return sorted(folder.glob("data-*.arrow"))
    try:
        names = [entry["filename"] for entry in parse_json(read_text(state, "listing"))["_data_files"]]
        if not all(isinstance(name, str) and Path(name).name == name for name in names):
            raise ValueError("a file outside the folder")
    except (ValueError, KeyError, TypeError) as error:
        raise TspruneError(f"{state} is damaged ({one_line(error, 100)}); {AGAIN}") from None
    for name in names:
        if not (folder / name).is_file():
            raise TspruneError(f"{state} lists {name}, which is missing; {AGAIN}")
    return [folder / name for name in names]


def record_batches(path: Path) -> list[Any]:
    """The record batches of an arrow file or stream, mapped into memory and checked."""
    source = pa.memory_map(str(path))
    try:
        batches = list(pa.ipc.open_stream(source))
    except pa.ArrowInvalid:
        source.seek(0)
        reader = pa.ipc.open_file(source)
        batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]
    for batch in batches:
        batch.validate(full=True)  # else a list could point outside its values
    return batches


def _frequency(folder: Path, first: int, column: Any, known: str | None) -> str | None:
    """The frequency of a batch's rows, which must equal that of the rows before (`known`)."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise TspruneError(f"{folder}: column freq holds {column.type}, not text such as 'H' or '15T'")
    for value in column.unique().to_pylist():
        known = value if known is None else known
        if value is None or not (value == known or _alike(value, known)):
            row = first + column.to_pylist().index(value)
            found = "missing" if value is None else f"{value!r}, and {known!r} in row 0"
            raise TspruneError(f"{folder}, row {row}: the frequency is {found}; a dataset has one frequency")
    return known


def _alike(one: str, other: str) -> bool:
    """Whether two spellings mean one frequency, apart from the days that weeks and years begin on."""
    try:
        return parse_frequency(one) == parse_frequency(other)
    except TspruneError:
        return False


def variates(folder: Path | str, first: int, targets: Any) -> list[list[Series]]:
    """The variates of each row; [time] rows have one, [dim][time] rows have dim."""
    targets = _storage(targets)
    _require_lists(folder, first, targets)
    outer, inner = bounds(targets), _storage(targets.values)
    if not is_list(inner.type):
        flat = _flat(folder, inner)
        found = [[flat[start:stop]] for start, stop in itertools.pairwise(outer)]
    else:
        _require_lists(folder, None, inner)
        flat = _flat(folder, _storage(inner.values))
        series = [flat[start:stop] for start, stop in itertools.pairwise(bounds(inner))]
        found = [series[start:stop] for start, stop in itertools.pairwise(outer)]
    for row, several in enumerate(found, start=first):
        lengths = sorted({len(variate) for variate in several})
        if len(lengths) > 1:
            raise TspruneError(
                f"{folder}, row {row}: variates of {lengths[0]} and {lengths[-1]} steps; they must be equal"
            )
        if lengths in ([], [0]):
            raise TspruneError(f"{folder}, row {row}: the target is empty")
    return found


def _storage(array: Any) -> Any:
    """The array of an extension type, which `datasets` uses for arrays of several dimensions."""
    return array.storage if isinstance(array, pa.ExtensionArray) else array


def is_list(kind: Any) -> bool:
    """Whether an arrow type is one of lists."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _require_lists(folder: Path | str, first: int | None, array: Any) -> None:
    """TspruneError unless `array` holds lists, none of them null; first : number of its first row."""
    if not is_list(array.type):
        raise TspruneError(f"{folder}: column target holds {array.type}, not lists of numbers")
    if array.null_count:
        missing = array.is_null().to_pylist().index(True)
        where = f"{folder}, row {first + missing}" if first is not None else str(folder)
        raise TspruneError(f"{where}: the target of a variate is missing")


def bounds(lists: Any) -> NDArray[np.int64]:
    """Where each list starts and ends in `lists.values`, [len(lists) + 1]."""
    if pa.types.is_fixed_size_list(lists.type):
        steps = np.arange(len(lists) + 1, dtype=np.int64) + lists.offset
        return np.asarray(steps * lists.type.list_size)
    return np.asarray(lists.offsets.to_numpy(zero_copy_only=False), dtype=np.int64)


def _flat(folder: Path | str, values: Any) -> Series:
    """Numbers as float32; a null becomes NaN, a number beyond float32 infinite. Without nulls a view."""
    if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
        raise TspruneError(f"{folder}: column target holds lists of {values.type}, not lists of numbers")
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float32)
