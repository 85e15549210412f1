"""Tables of results, and schemas: the columns of tables and their meanings, for producers, readers and tests.

Producers build a table through its schema, so that a renamed, missing or additional column is an error.
"""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, overload

from tsprune.errors import TspruneError

if TYPE_CHECKING:
    import pandas as pd

# "count" is int64 without missing values and Int64 with them; "any" is left as it is
ValueType = Literal["text", "number", "count", "flag", "any"]
_SHOWN = 20  # rows of a table in a notebook


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table.

    about : its meaning, in a line
    unit : of the values, such as "s", "steps" or "relative change"; "" for names and pure numbers
    dtype : of the values
    optional : whether a table may lack it
    """

    name: str
    about: str
    unit: str = ""
    dtype: ValueType = "number"
    optional: bool = False


def estimated(
    name: str, about: str, unit: str = "", *, limits: str | None = None, optional: bool = False
) -> tuple[Column, Column, Column]:
    """The columns of an estimate with its 95 % interval: `name`, `name`_low and `name`_high by default.

    limits : what the limits' names begin with ("" for low and high)
    """
    start = f"{name}_" if limits is None else limits
    return (
        Column(name, about, unit, optional=optional),
        Column(f"{start}low", f"lower 95 % limit of {name}", unit, optional=optional),
        Column(f"{start}high", f"upper 95 % limit of {name}", unit, optional=optional),
    )


class Schema:
    """The columns of a table, in order.

    name : of the table
    columns : a function stands for columns that are only known when it is called, such as one per metric

    >>> schema = Schema("sizes", Column("model", "its name", dtype="text"), Column("size", "on disk", "MB"))
    >>> schema.names
    ('model', 'size')
    """

    def __init__(self, name: str, *columns: Column | Callable[[], Iterable[Column]]) -> None:
        self.name = name
        self._columns = columns

    def __iter__(self) -> Iterator[Column]:
        for one in self._columns:
            yield from (one,) if isinstance(one, Column) else one()

    def __getitem__(self, name: str) -> Column:
        """The column of a name; TspruneError if there is none."""
        for column in self:
            if column.name == name:
                return column
        raise TspruneError(f"the table {self.name} has no column {name!r}; it has: {', '.join(self.names)}")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all columns."""
        return tuple(column.name for column in self)

    def __str__(self) -> str:
        """The columns with units and meanings, one a line."""
        return "\n".join(f"{c.name}{f' [{c.unit}]' if c.unit else ''} : {c.about}" for c in self)

    def frame(self, rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
        """A table with one row per mapping, its columns in the order of the schema.

        Raises TspruneError for a column that the schema lacks, and for one that is missing in every row.
        """
        import pandas as pd  # 0.3 s

        records = list(rows)
        names = dict.fromkeys(name for row in records for name in row)
        if not records:
            names = dict.fromkeys(column.name for column in self if not column.optional)
        return self.checked(pd.DataFrame.from_records(records, columns=list(names)))

    def checked(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The table with its columns in the order of the schema, and their values of the declared types.

        Raises TspruneError as `frame` does.
        """
        columns = {column.name: column for column in self}
        for name in frame.columns:
            if name not in columns:
                raise TspruneError(f"unknown column {name!r} in the table {self.name}")
        for column in columns.values():
            if column.name not in frame and not column.optional:
                raise TspruneError(f"the table {self.name} lacks the column {column.name!r}")
        ordered = frame[[name for name in columns if name in frame]]
        dtypes = {name: _dtype(ordered[name], columns[name].dtype) for name in ordered}
        return ordered.astype({name: dtype for name, dtype in dtypes.items() if dtype is not None})


def _dtype(values: pd.Series[Any], dtype: ValueType) -> str | None:
    if dtype == "count":
        return "Int64" if values.isna().any() else "int64"
    return {"number": "float64", "flag": "bool"}.get(dtype)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Table:
    """A table of results, with everything that is missing from it.

    frame : the rows; `table["MASE"]` and `table[["configuration", "MASE"]]` are columns of them
    title : of the table
    skipped : (configuration or window, reason) of all that was left out
    failed : (components and configuration, error) of the ablations that raised
    notes : cautions about what the rows show
    """

    frame: pd.DataFrame
    title: str
    skipped: tuple[tuple[str, str], ...] = ()
    failed: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @overload
    def __getitem__(self, columns: str) -> pd.Series[Any]: ...

    @overload
    def __getitem__(self, columns: list[str]) -> pd.DataFrame: ...

    def __getitem__(self, columns: str | list[str]) -> pd.Series[Any] | pd.DataFrame:
        return self.frame[columns]

    def __len__(self) -> int:
        return len(self.frame)

    def _headline(self) -> str:
        counts = {"rows": len(self), "skipped": len(self.skipped), "failed": len(self.failed)}
        parts = (f"{count} {what}" for what, count in counts.items() if count or what == "rows")
        return f"{self.title}: {', '.join(parts)}"

    def __repr__(self) -> str:
        return "\n".join([f"<{self._headline()}>", *self.notes, str(self.frame)])

    def _repr_html_(self) -> str:
        more = f" (first {_SHOWN} shown)" if len(self) > _SHOWN else ""
        rows = self.frame.head(_SHOWN).to_html(index=False, border=0)
        left_out = "".join(
            f"<li>{html.escape(f'{what}: {why}')}</li>" for what, why in (*self.skipped, *self.failed)
        )
        listed = f"<details><summary>left out</summary><ul>{left_out}</ul></details>" if left_out else ""
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        return f"<p>{html.escape(self._headline())}{more}</p>{notes}{rows}{listed}"
