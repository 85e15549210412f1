"""CSV files of any common encoding and separator, as tables of text."""

from __future__ import annotations

import codecs
import csv
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv

from tsprune.data.own.table_place import TablePlace
from tsprune.errors import TspruneError, one_line
from tsprune.files import reason

SEPARATORS = ";\t|,"  # the first of equals: numbers may have decimal commas
_HEAD = 2**16  # bytes that decide encoding and separator, with those of the whole file for UTF-8
_BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_FALLBACK = "cp1252"  # of text that is not UTF-8


def read_csv(path: Path) -> tuple[pa.Table, TablePlace]:
    """The table of a CSV file, all columns text; every value is parsed later, by one convention.

    Raises TspruneError, with the line, for lines of unlike lengths, and for a file without a header.
    """
    content = _content(path)
    encoding = _encoding(path, content)
    lines = content[:_HEAD].decode(encoding, errors="replace").splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise TspruneError(f"{path} is empty")
    comments = _comments(lines)
    separator = _separator(lines[comments:][:20])
    names = [name.strip() for name in next(csv.reader([lines[comments]], delimiter=separator))]
    _require_header(path, names)
    blank = b"\n\n" in content.strip() or b"\n\r\n" in content.strip()  # lines that are not rows
    noun, first = ("row", 1) if blank else ("line", 2 + comments)
    place = TablePlace(str(path), noun, first, comma=separator == ";")
    return _parsed(path, content, encoding, separator, names, comments), place


def _comments(lines: list[str]) -> int:
    """The number of lines before the header: those that begin with # and are not the header themselves."""
    count = next((place for place, line in enumerate(lines) if not line.startswith("#")), 0)
    if not count:
        return 0
    separator = _separator(lines[count:][:20])
    last, after = (len(row) for row in csv.reader(lines[count - 1 : count + 1], delimiter=separator))
    return count - 1 if last == after else count


def _content(path: Path) -> bytes:
    try:
        with pa.input_stream(str(path), compression="detect") as stream:
            return bytes(stream.read())
    except (OSError, pa.ArrowException) as error:
        raise TspruneError(f"cannot read {path} ({reason(error)})") from None


def _encoding(path: Path, content: bytes) -> str:
    for mark, encoding in _BOMS.items():
        if content.startswith(mark):
            return encoding
    if b"\0" in content[:_HEAD]:
        raise TspruneError(f"{path} is not a text file")
    try:
        content.decode()
    except UnicodeDecodeError:
        return _FALLBACK
    return "utf-8"


def _separator(lines: list[str]) -> str:
    """The one that splits the header, and most lines into as many fields; of several the one with most."""

    def fit(separator: str) -> tuple[bool, int]:
        header, *counts = (len(row) for row in csv.reader(lines, delimiter=separator))
        alike = sum(count == header for count in counts)
        return header > 1 and 2 * alike >= len(counts), header

    return max(SEPARATORS, key=fit)


def _require_header(path: Path, names: list[str]) -> None:
    def numeric(word: str) -> bool:
        try:
            return float(word.replace(",", ".")) is not None
        except ValueError:
            return False

    # the name of a single column may be a number, and so may those of columns that are times
    if names and numeric(names[0]) and len(names) < 4:
        raise TspruneError(
            f"{path}: line 1 begins with the number {names[0]}; add a line with the columns' names"
        )


def _parsed(
    path: Path, content: bytes, encoding: str, separator: str, names: list[str], skipped: int
) -> pa.Table:
    wrong: list[str] = []

    def note(row: Any) -> str:
        number = "" if row.number is None else f", line {row.number}"
        wrong.append(f"{path}{number}: {row.actual_columns} fields; the header has {row.expected_columns}")
        return "skip"

    fields = dict.fromkeys(names, pa.string())
    try:
        table = pa_csv.read_csv(
            io.BytesIO(content),
            read_options=pa_csv.ReadOptions(use_threads=False, encoding=encoding, skip_rows=skipped),
            parse_options=pa_csv.ParseOptions(
                delimiter=separator,
                newlines_in_values=True,
                ignore_empty_lines=True,
                invalid_row_handler=note,
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types=fields, strings_can_be_null=True, null_values=[""]
            ),
        )
    except (pa.ArrowException, UnicodeError, ValueError) as error:
        raise TspruneError(f"cannot read {path} ({one_line(error, 160)})") from None
    if wrong:
        raise TspruneError(wrong[0])
    return table
