"""JSON: a line or an element of a list per row, or an object of columns; gluonts datasets among them."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from tsprune.arguments import shown
from tsprune.data.own.table_place import TablePlace
from tsprune.errors import TspruneError, one_line
from tsprune.files import parse_json, reason

MOST_BYTES = 2**31  # of a file's text, unpacked


def read_json(path: Path) -> tuple[pa.Table, TablePlace]:
    """The table of a JSON file.

    Raises TspruneError, with the line or row, for whatever is not one of the forms above.
    """
    text = _text(path)
    start = text.lstrip()[:1]
    if start == "[":
        rows, place = _value(text, str(path)), TablePlace(str(path))
    else:
        place = TablePlace(str(path), "line", 1)
        rows = [row for row in _lines(text, place) if row is not None]
        if len(rows) == 1 and (inner := _only_rows(rows[0])):
            rows, place = inner, TablePlace(str(path))
        elif len(rows) == 1 and isinstance(rows[0], dict) and "target" not in rows[0]:
            rows, place = _rows_of_columns(rows[0]), TablePlace(str(path))
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise TspruneError(
                f"{place.row(index)}: {shown(row)} is not an object with a column's name for each value"
            )
    return table_of_rows(rows, place), place


def table_of_rows(rows: Sequence[dict[str, Any]], place: TablePlace) -> pa.Table:
    """A table from a mapping per row, of the columns that any row has."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: column_of([row.get(name) for row in rows], name, place) for name in names})


def column_of(values: Sequence[Any], name: str, place: TablePlace) -> pa.Array:
    """An arrow column; values of mixed types become text, lists of numbers may hold "NaN"."""
    if any(isinstance(value, list) for value in values):
        return _lists(values, name, place)
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowException, OverflowError, TypeError):
        try:
            return pa.array([None if value is None else str(value) for value in values])
        except (pa.ArrowException, ValueError) as error:
            raise TspruneError(f"{place.name}: cannot read column {name} ({one_line(error, 120)})") from None


def _lists(values: Sequence[Any], name: str, place: TablePlace) -> pa.Array:
    try:
        return pa.array([_floats(value) for value in values])
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        pass
    try:
        return pa.array(values)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise TspruneError(
            f"{place.name}: cannot read the lists of {name} ({one_line(error, 120)})"
        ) from None


def _floats(value: Any) -> Any:
    """Numbers of nested lists as floats: whole and other numbers mix, and gluonts writes "NaN" as text."""
    if isinstance(value, list):
        return [_floats(each) for each in value]
    return None if value is None else float(value)


def _text(path: Path) -> str:
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise TspruneError(f"{path} holds more than {MOST_BYTES // 2**30} GiB of text")
        return content.decode("utf-8-sig")
    except (OSError, EOFError) as error:
        raise TspruneError(f"cannot read {path} ({reason(error)})") from None
    except UnicodeDecodeError:
        raise TspruneError(f"{path} is not a text file") from None


def _value(text: str, where: str) -> Any:
    try:
        return parse_json(text)
    except (ValueError, RecursionError) as error:
        raise TspruneError(f"{where}: not JSON ({one_line(error, 120)})") from None


def _lines(text: str, place: TablePlace) -> Iterator[Any]:
    """The value of each line; None for an empty one. One object over several lines is one value."""
    lines = text.splitlines()
    if len(lines) > 1 and lines[0].strip() == "{":
        yield _value(text, place.name)
        return
    for index, line in enumerate(lines):
        yield _value(line, place.row(index)) if line.strip() else None


def _only_rows(value: Any) -> list[Any]:
    """The list of objects within an object that has no other, such as {"data": [...]}."""
    lists = [each for each in value.values() if isinstance(each, list)] if isinstance(value, dict) else []
    return lists[0] if len(lists) == 1 and lists[0] and isinstance(lists[0][0], dict) else []


def _rows_of_columns(columns: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows from an object of columns: lists, or objects by row as pandas writes them."""
    lists = {
        name: list(values.values()) if isinstance(values, dict) else values
        for name, values in columns.items()
    }
    if not lists or not all(isinstance(values, list) for values in lists.values()):
        return [columns]
    if len({len(values) for values in lists.values()}) > 1:
        return [columns]
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
