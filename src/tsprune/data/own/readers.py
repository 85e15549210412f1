"""Files of tables by their suffix, and folders of them. Nothing in a file is unpickled or executed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from tsprune.data.arrow import dataset_files, record_batches
from tsprune.data.own.csv_reader import read_csv
from tsprune.data.own.json_reader import read_json
from tsprune.data.own.numeric import is_text
from tsprune.data.own.table_columns import FILE_COLUMN
from tsprune.data.own.table_place import TablePlace
from tsprune.errors import TspruneError, one_line
from tsprune.files import existing_file

Reader = Callable[[Path], tuple[pa.Table, TablePlace]]


def read_parquet(path: Path) -> tuple[pa.Table, TablePlace]:
    """The table of a Parquet file; text that repeats takes little memory as a dictionary."""
    import pyarrow.parquet as pq

    text = [field.name for field in pq.read_schema(path) if is_text(field.type)]
    return pq.ParquetFile(path, read_dictionary=text).read(use_threads=False), TablePlace(str(path))


def read_arrow(path: Path) -> tuple[pa.Table, TablePlace]:
    """The table of an arrow or Feather file, or of an arrow stream."""
    batches = record_batches(path)
    return pa.Table.from_batches(batches), TablePlace(str(path))


READERS: dict[str, Reader] = {
    **dict.fromkeys((".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz"), read_csv),
    **dict.fromkeys((".json", ".jsonl", ".ndjson", ".json.gz", ".jsonl.gz"), read_json),
    **dict.fromkeys((".parquet", ".pq"), read_parquet),
    **dict.fromkeys((".arrow", ".feather", ".ipc"), read_arrow),
}


def suffix_of(path: Path) -> str:
    """The suffix by which a file is read, such as ".csv" or ".csv.gz"."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return "".join(suffixes[-2:]) if suffixes[-1:] == [".gz"] else "".join(suffixes[-1:])


def read_any(path: Path) -> tuple[pa.Table, TablePlace]:
    """The table of a file, of all files of a folder, or of a folder that `datasets` saved.

    Raises TspruneError for another kind of file, and for one that is damaged.
    """
    if not path.is_dir():
        return _read(path)
    if (path / "dataset_dict.json").is_file():
        splits = ", ".join(sorted(one.name for one in path.iterdir() if one.is_dir()))
        raise TspruneError(f"{path} holds several splits ({splits}); name one of these folders")
    if (path / "dataset_info.json").is_file():
        return _dataset(path)
    return _joined(path, [_read(one) for one in table_files(path)])


def holds_tables(folder: Path) -> bool:
    """Whether `read_any` knows something in a folder."""
    marks = (folder / "dataset_dict.json", folder / "dataset_info.json")
    return any(mark.is_file() for mark in marks) or bool(table_files(folder))


def table_files(folder: Path) -> list[Path]:
    """The files of a folder that a reader knows, in the order of their names."""
    return sorted(path for path in folder.iterdir() if path.is_file() and suffix_of(path) in READERS)


def _read(path: Path) -> tuple[pa.Table, TablePlace]:
    existing_file(path, "data file")
    reader = READERS.get(suffix_of(path))
    if reader is None:
        hint = "; save the sheet as CSV" if path.suffix.lower() in (".xlsx", ".xls", ".ods") else ""
        raise TspruneError(
            f"{path}: no reader for {path.suffix or 'a file without a suffix'}; {', '.join(READERS)}{hint}"
        )
    try:
        return reader(path)
    except TspruneError:
        raise
    except Exception as error:  # arrow raises many kinds for damaged bytes
        raise TspruneError(f"cannot read {path} ({one_line(error, 160)})") from None


def _dataset(folder: Path) -> tuple[pa.Table, TablePlace]:
    batches = [
        batch for path in dataset_files(folder) for batch in record_batches(existing_file(path, "data file"))
    ]
    if not batches:
        raise TspruneError(f"{folder} holds no series")
    return pa.Table.from_batches(batches), TablePlace(str(folder))


def _joined(folder: Path, read: list[tuple[pa.Table, TablePlace]]) -> tuple[pa.Table, TablePlace]:
    """One table from files of the same columns, with the file of each row in a column of its own."""
    if not read:
        raise TspruneError(f"no table in {folder}; files with these suffixes are read: {', '.join(READERS)}")
    (first, place), names = read[0], set(read[0][0].column_names)
    parts, files, start = [], [], 0
    for table, at in read:
        if set(table.column_names) != names:
            odd = ", ".join(sorted(names.symmetric_difference(table.column_names))[:8])
            raise TspruneError(
                f"{place.name} and {at.name} differ in columns ({odd}); files of a folder must be alike"
            )
        label = pa.array([Path(at.name).name.split(".")[0]] * table.num_rows, pa.string())
        parts.append(table.select(first.column_names).append_column(FILE_COLUMN, label))
        files.append((at.name, start))
        start += table.num_rows
    if len(parts) == 1:
        return first, place
    try:
        whole = pa.concat_tables(parts, promote_options="permissive")
    except pa.ArrowException as error:
        raise TspruneError(f"the files of {folder} differ in types ({one_line(error, 160)})") from None
    return whole, TablePlace(str(folder), place.noun, place.first, tuple(files), place.comma)
