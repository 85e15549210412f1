"""Data frames of several packages as arrow tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tsprune.arguments import shown
from tsprune.data.own.json_reader import column_of
from tsprune.data.own.table_place import TablePlace
from tsprune.errors import TspruneError, one_line

if TYPE_CHECKING:
    import pandas as pd


def arrow_table(frame: Any) -> pa.Table:
    """The table of a data frame; a pandas index that is more than row numbers becomes columns.

    Raises TspruneError for objects that are not data frames.
    """
    import narwhals as nw
    import pandas as pd

    if isinstance(frame, pd.Series):
        frame = frame.to_frame("y" if frame.name is None else frame.name)
    if isinstance(frame, pd.DataFrame):
        return _from_pandas(frame)
    try:
        found: Any = nw.from_native(frame)
        return (found.collect() if isinstance(found, nw.LazyFrame) else found).to_arrow()
    except TypeError:
        raise TspruneError(
            f"{shown(frame)} is not a data frame, and not a file's path for from_file"
        ) from None
    except Exception as error:  # whatever the frame's own package raises
        raise TspruneError(f"cannot read the table ({one_line(error, 160)})") from None


def _from_pandas(frame: pd.DataFrame) -> pa.Table:
    import pandas as pd

    index = frame.index
    if not (isinstance(index, pd.RangeIndex) and index.name is None):
        names = [f"level_{n}" if name is None else name for n, name in enumerate(index.names)]
        levels = index.to_frame(index=False)
        levels.columns = pd.Index(["index"] if names == ["level_0"] else names)
        frame = pd.concat([levels, frame.reset_index(drop=True)], axis=1)
    labels = ["/".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in frame.columns]
    columns = [_column(frame.iloc[:, number], label) for number, label in enumerate(labels)]
    return pa.Table.from_arrays(columns, names=labels)


def _column(values: pd.Series[Any], label: str) -> Any:
    import pandas as pd

    first = values.dropna().iloc[:1].tolist() if values.dtype == object else []
    if first and isinstance(first[0], pd.Period):
        values = pd.Series(pd.PeriodIndex(values))
    if isinstance(values.dtype, pd.PeriodDtype):
        values = values.dt.to_timestamp()
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return column_of(
            [None if pd.api.types.is_scalar(v) and pd.isna(v) else v for v in values],
            label,
            TablePlace("the table"),
        )
