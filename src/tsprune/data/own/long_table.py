"""A suite as a long table, a row per step of a series."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tsprune.data.suite import Configuration, Suite
from tsprune.schema import Column, Schema

if TYPE_CHECKING:
    import pandas as pd

LONG_TABLE = Schema(
    "long table",
    Column("configuration", "<dataset>/<frequency>/<term>", dtype="text"),
    Column("unique_id", "name of the series", dtype="text"),
    Column("ds", "time of the value, or its step from 0 on", dtype="any"),
    Column("y", "value; NaN if it is missing", dtype="any"),
)


def long_table(suite: Suite) -> pd.DataFrame:
    """The table of `Suite.to_frame`, with the columns of `LONG_TABLE`."""
    import pandas as pd

    parts = [part for c in suite.configurations for part in _parts(c)]
    if not parts:
        return LONG_TABLE.frame([])
    columns = {name: np.concatenate([part[name] for part in parts]) for name in LONG_TABLE.names}
    return LONG_TABLE.checked(pd.DataFrame(columns))


def _parts(c: Configuration) -> list[dict[str, NDArray[Any]]]:
    """The columns of each series."""
    found = []
    for owner in dict.fromkeys(c.series.tolist()):
        windows = np.flatnonzero(c.series == owner)
        values, times = _joined(c, windows)
        label = str(owner) if c.origins is None else c.origins.ids[int(windows[0])]
        names = {"configuration": c.name, "unique_id": label}
        found.append(
            {name: np.full(len(values), text, dtype=object) for name, text in names.items()}
            | {"ds": times, "y": values}
        )
    return found


def _joined(c: Configuration, windows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Values and times of one series, from its windows: later ones go on where earlier ones end."""
    first = int(windows[0])
    places = [_offset(c, first, int(window)) for window in windows]
    ends = [place + len(c.contexts[int(w)]) + c.horizon for place, w in zip(places, windows, strict=True)]
    start, length = min(places), max(ends) - min(places)
    values = np.full(length, np.nan, dtype=np.float32)
    for place, window in zip(places, windows, strict=True):
        whole = np.concatenate([c.contexts[int(window)], c.targets[window]])
        values[place - start : place - start + len(whole)] = whole
    known = None if c.origins is None else c.origins.times(first, start, length)
    return values, np.arange(length, dtype=np.int64) if known is None else known


def _offset(c: Configuration, first: int, window: int) -> int:
    """Steps from the start of the first window's context to that of another; 0 where times are unknown."""
    if c.origins is None or np.isnat(c.origins.starts[first]):
        return 0
    start = c.origins.starts[[first, window]].astype(np.int64)
    step, sign = c.origins.steps[first], 1 if start[1] >= start[0] else -1
    return sign * int(step.positions(np.sort(start))[-1]) if start[0] != start[1] else 0
