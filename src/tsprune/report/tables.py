"""Data frames as tables for the page: headings with units, readable cells, exact values kept."""

from __future__ import annotations

import dataclasses
import math
import numbers
from typing import Any

import pandas as pd

from tsprune.report.words import MISSING, parameters, percent, ratio

HEADINGS = {
    "configuration": "configuration",
    "seasonal_naive_MASE": "Seasonal Naive MASE",
    "seasonal_naive_CRPS": "Seasonal Naive CRPS",
    "MASE_ratio": "MASE / Seasonal Naive",
    "CRPS_ratio": "CRPS / Seasonal Naive",
    "mase_change": "change of MASE",
    "crps_change": "change of CRPS",
    "median_mase_change": "median change of MASE",
    "largest_mase_change": "largest change of MASE",
    "median_crps_change": "median change of CRPS",
    "largest_crps_change": "largest change of CRPS",
    "score_change": "change of score",
    "spearman_distance": "Spearman distance",
    "stable_rank": "stable rank (paper)",
    "stable_rank_effective": "stable rank (effective)",
    "p_value": "p",
    "percent": "removed (%)",
    "heads_removed": "heads removed",
    "heads_total": "of heads",
    "heads_at": "must stay",
    "removed": "can go",
}
NUMBERS_OF_THINGS = {
    "layer", "head", "MLPs", "heads", "seed", "windows", "heads_removed", "heads_total", "heads_at",
    "removed",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Cell:
    """`text` is for reading, `value` the exact number (as text) for sorting and copying."""

    text: str
    value: str | None = None


@dataclasses.dataclass(frozen=True)
class Table:
    """A titled table; `numeric[i]` tells whether column i holds numbers."""

    title: str
    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[Cell, ...], ...]


def table(title: str, frame: pd.DataFrame) -> Table:
    """`frame` with its columns in the order they have."""
    names = [str(name) for name in frame.columns]
    rows = tuple(
        tuple(cell(name, value) for name, value in zip(names, row, strict=True))
        for row in frame.itertuples(index=False, name=None)
    )
    numeric = tuple(bool(rows) and all(row[i].value is not None for row in rows) for i in range(len(names)))
    return Table(title, tuple(HEADINGS.get(n, n.replace("_", " ")) for n in names), numeric, rows)


def cell(column: str, value: Any) -> Cell:
    """One value as the column's unit wants it read."""
    if value is None or value is pd.NA:
        return Cell(MISSING, "nan")
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return Cell(str(value))
    number = float(value)
    return Cell(_readable(column, number), repr(number))


def _readable(column: str, number: float) -> str:
    if math.isnan(number):
        return MISSING
    if column.endswith("_change"):
        return percent(number)
    if column == "parameters":
        return parameters(int(number))
    if column.endswith("_ratio"):
        return ratio(number)
    if column in NUMBERS_OF_THINGS and number.is_integer():
        return f"{int(number):,}"
    return f"{number:,.4g}"
