"""Columns of numbers, also written as text: nulls, decimal commas and thousands separators."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tsprune.arguments import shown
from tsprune.data.own.table_place import TablePlace
from tsprune.errors import TspruneError

NULLS = ("", "na", "n/a", "#n/a", "nan", "<na>", "null", "none", "nil", "-", "--", "?", ".", "missing")
_SAMPLE = 200  # values that decide whether a column of text holds numbers

_PLAIN = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?inf(?:inity)?", re.I)
_COMMA = re.compile(r"[-+]?(?:\d{1,3}(?:\.\d{3})+|\d+),\d+")  # 1.234,5
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")  # 1,234.5
_POINTS = re.compile(r"[-+]?\d{1,3}(?:\.\d{3})+")  # 1.234 among numbers with decimal commas
_SPACES = str.maketrans({" ": None, "\u00a0": None, "\u2009": None, "\u202f": None, "'": None, "\u2212": "-"})


def plain_column(column: Any, nulls: Sequence[str] = NULLS) -> Any:
    """The column without dictionary encoding, as one array; text is trimmed, and `nulls` in it are null."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # of no chunks, or of more text than one array holds
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if is_text(column.type):
        if pa.types.is_string_view(column.type):  # which has no functions of text
            column = pc.cast(column, pa.large_string())
        trimmed = pc.utf8_trim_whitespace(column)
        empty = pc.is_in(pc.utf8_lower(trimmed), value_set=pa.array(nulls, trimmed.type))
        column = pc.if_else(empty, pa.scalar(None, trimmed.type), trimmed)
    return column


def is_text(kind: Any) -> bool:
    """Whether an arrow type is one of text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_number(kind: Any) -> bool:
    """Whether an arrow type is one of numbers."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def is_numeric(column: Any) -> bool:
    """Whether most values of a `plain` column are numbers, or text that is written like numbers."""
    if is_number(column.type):
        return True
    if not is_text(column.type):
        return False
    words = pc.drop_null(column)[:_SAMPLE].to_pylist()
    like = sum(any(form.fullmatch(_bare(w)) for form in (_PLAIN, _COMMA, _THOUSANDS)) for w in words)
    return 2 * like > len(words)


def numbers(column: Any, name: str, place: TablePlace) -> NDArray[np.float64]:
    """The values of a `plain` column as float64 [R]; a null is NaN.

    name : of the column

    Raises TspruneError, with the row, for a value that is not a number.
    """
    if is_text(column.type):
        try:
            column = pc.cast(column, pa.float64())
        except pa.ArrowInvalid:
            column = pa.array(_written(column.to_pylist(), name, place), pa.float64())
    elif pa.types.is_null(column.type):
        return np.full(len(column), np.nan)
    elif not is_number(column.type):
        raise TspruneError(f"{place.name}: column {name} holds {column.type}, not numbers")
    return np.asarray(pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False))


def _bare(word: str) -> str:
    return word.translate(_SPACES)


def _written(words: list[str | None], name: str, place: TablePlace) -> list[float | None]:
    """Numbers from text, all read by one convention: decimal points or decimal commas."""
    bare = [None if word is None else _bare(word) for word in words]
    odd = {row: word for row, word in enumerate(bare) if word is not None and not _PLAIN.fullmatch(word)}
    for row, word in odd.items():
        if not (_COMMA.fullmatch(word) or _THOUSANDS.fullmatch(word)):
            raise TspruneError(f"{place.row(row)}: {shown(words[row])} in column {name} is not a number")
    if not odd:  # signs and spaces only
        return [None if word is None else float(word) for word in bare]
    no_comma = next((row for row, word in odd.items() if not _COMMA.fullmatch(word)), None)
    no_thousands = next((row for row, word in odd.items() if not _THOUSANDS.fullmatch(word)), None)
    if no_comma is not None and no_thousands is not None:
        raise TspruneError(
            f"{place.row(no_thousands)}: {shown(words[no_thousands])} in column {name} has a decimal comma, "
            f"{shown(words[no_comma])} in {place.noun} {place.first + no_comma} has not"
        )
    if no_comma is None and no_thousands is None and not place.comma:
        row, word = next(iter(odd.items()))
        raise TspruneError(
            f"{place.row(row)}: {shown(word)} in column {name} may have a decimal comma or a thousands "
            "separator; write numbers with a decimal point only"
        )
    return _with_points(bare, words, no_comma is None, name, place)


def _with_points(
    bare: list[str | None], words: list[str | None], commas: bool, name: str, place: TablePlace
) -> list[float | None]:
    found: list[float | None] = []
    for row, word in enumerate(bare):
        if word is None:
            found.append(None)
        elif not commas:
            found.append(float(word.replace(",", "")))
        elif "." in word and "," not in word and not _POINTS.fullmatch(word):
            raise TspruneError(
                f"{place.row(row)}: {shown(words[row])} in column {name} has a decimal point, others have "
                "a decimal comma"
            )
        else:
            found.append(float(word.replace(".", "").replace(",", ".")))
    return found
