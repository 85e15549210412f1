"""The columns of an arrow table as they are read: trimmed, decoded, as ids or as values."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tsprune.data.own.numeric import plain_column
from tsprune.data.own.table_place import TablePlace
from tsprune.errors import TspruneError

_SAMPLE_ROWS = 2000
FILE_COLUMN = "\0file"  # of the rows of a folder's files


def folded(name: str) -> str:
    """A column's name as conventions are compared.

    >>> folded("Unique_ID ")
    'uniqueid'
    """
    return re.sub(r"[\s_-]", "", name).lower()


class TableColumns(Mapping[str, Any]):
    """The `plain` columns of an arrow table, each made when it is first used."""

    def __init__(self, table: pa.Table, place: TablePlace) -> None:
        self.place = place
        self._table = table
        self._plain: dict[str, Any] = {}
        self._labels: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._plain:
            self._plain[name] = plain_column(self._table.column(name))
        return self._plain[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table.column_names)

    def __len__(self) -> int:
        return int(self._table.num_columns)

    def sample(self, name: str) -> Any:
        """The first rows of a plain column, which tell its kind; all rows if these hold no value."""
        first = plain_column(self._table.column(name).slice(0, _SAMPLE_ROWS))
        return first if first.null_count < len(first) else self[name]

    def labels(self, name: str) -> Any:
        """A column of ids: "NA" and other words for missing numbers are names."""
        if name not in self._labels:
            coded = self._table.column(name).dictionary_encode().combine_chunks()
            self._labels[name] = pc.take(plain_column(coded.dictionary, nulls=("",)), coded.indices)
        return self._labels[name]

    @property
    def height(self) -> int:
        """Number of rows."""
        return int(self._table.num_rows)

    def require(self, name: str, option: str) -> str:
        """`name`, if there is such a column; TspruneError, with the columns that are close, if not."""
        if name in self:
            return name
        names = [other for other in self if other != FILE_COLUMN]
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or names[:8]
        raise TspruneError(
            f"{self.place.name} has no column {name!r} for {option}; columns: {', '.join(near)}"
        )


def codes_of(column: Any) -> NDArray[np.int32]:
    """Numbers [R] of a column's distinct values, in the order of their first rows; -1 of a null."""
    codes = pc.fill_null(pc.dictionary_encode(column).indices, -1)
    return np.asarray(codes.to_numpy(zero_copy_only=False))


def repeats(values: Any) -> bool:
    """Whether a value of an array occurs twice."""
    return bool(pc.count_distinct(values).as_py() < len(values))


def counts_rows(values: NDArray[np.integer]) -> bool:
    """Whether numbers are 0, 1, 2, ... or 1, 2, 3, ..."""
    return len(values) > 1 and values[0] in (0, 1) and bool((np.diff(values) == 1).all())
