"""Data frames as tables for the page: headings with units, readable cells, exact values kept."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Iterable
from typing import Any

import pandas as pd

from tsprune.evaluation.metrics import METRICS
from tsprune.report.words import MISSING, between, parameters, percent, ratio
from tsprune.schema import Schema

_HEADINGS = {
    "stable_rank": "stable rank (paper)",
    "stable_rank_effective": "stable rank (effective)",
    "p_value": "p",
    "p_holm": "p (Holm)",
    "expected": "sign expected",
    "difference": "relative difference",
    "beaten": "draws beaten",
    "percent": "removed (%)",
    "heads_total": "of heads",
    "heads_at": "must stay",
    "removed": "can go",
    "time_ratio": "time / original's",
    "ms": "time (ms)",
}
# of columns that are made for every metric: their pattern and heading
_METRIC_HEADINGS = {
    "seasonal_naive_{name}": "Seasonal Naive {name}",
    "{name}_ratio": "{name} / Seasonal Naive",
    "{name}_interval": "95 % interval",
    "{key}_change": "change of {name}",
    "median_{key}_change": "median change of {name}",
    "largest_{key}_change": "largest change of {name}",
    "{key}_p_holm": "p (Holm), {name}",
}
_COUNTS = {
    "layer", "head", "MLPs", "heads", "seed", "windows", "heads_removed", "heads_total", "heads_at",
    "removed", "draws", "beaten", "count", "units",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class TableCell:
    """`text` is for reading, `value` the exact number (as text) for sorting and copying.

    high : of an interval, whose lower limit is `value`
    """

    text: str
    value: str | None = None
    high: str | None = None


@dataclasses.dataclass(frozen=True)
class PageTable:
    """A titled table; `numeric[i]` tells whether column i holds numbers, `about[i]` describes it."""

    title: str
    columns: tuple[str, ...]
    about: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[TableCell, ...], ...]


def page_table(title: str, frame: pd.DataFrame, schema: Schema | None = None) -> PageTable:
    """`frame` with its columns in the order they have; limits of an interval share one column.

    schema : describes the columns

    Raises TspruneError for a column that `schema` lacks.
    """
    names = [str(name) for name in frame.columns]
    # lower limit -> upper limit of the same interval
    limits = {name: name.removesuffix("low") + "high" for name in names if f"_{name}".endswith("_low")}
    limits = {low: high for low, high in limits.items() if high in names}
    shown = [name for name in names if name not in limits.values()]
    rows = tuple(
        tuple(_cell(name, dict(zip(names, row, strict=True)), limits.get(name)) for name in shown)
        for row in frame.itertuples(index=False, name=None)
    )
    numeric = tuple(bool(rows) and all(row[i].value is not None for row in rows) for i in range(len(shown)))
    about = tuple("" if schema is None or name == "model" else schema[name].about for name in shown)
    headings = dict(_HEADINGS) | dict.fromkeys(limits, "95 % interval")
    for metric in METRICS.values():
        for pattern, words in _METRIC_HEADINGS.items():
            headings[pattern.format(name=metric.name, key=metric.key)] = words.format(name=metric.name)
    return PageTable(
        title, tuple(headings.get(name, name.replace("_", " ")) for name in shown), about, numeric, rows
    )


def of_models(tables: Iterable[tuple[str, pd.DataFrame]]) -> pd.DataFrame:
    """Tables of several models as one, with the model's name in the first column."""
    parts = [part.assign(model=name)[["model", *part.columns]] for name, part in tables if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _cell(name: str, row: dict[str, Any], upper: str | None) -> TableCell:
    """The cell of one value, or of the interval from it to the column `upper`."""
    value = row[name]
    if upper is not None:
        low, high = float(value), float(row[upper])
        stem = name.removesuffix("low")
        estimates = (f"{stem}change", "" if stem else "difference")
        change = any(name in row and _relative(name) for name in estimates)
        text = between(low, high) if change else f"{low:,.3g} to {high:,.3g}"
        return TableCell(MISSING if math.isnan(low) else text, repr(low), repr(high))
    if value is None or value is pd.NA:
        return TableCell(MISSING, "nan")
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return TableCell(str(value))
    return TableCell(_readable(name, float(value)), repr(float(value)))


def _relative(column: str) -> bool:
    """Whether a column holds relative changes; `change` alone is one of a trait, in its own units."""
    return column.endswith("_change") or column == "difference"


def _readable(column: str, number: float) -> str:
    if math.isnan(number):
        return MISSING
    if _relative(column):
        return percent(number)
    if column == "parameters":
        return parameters(int(number))
    if column.endswith("_ratio"):
        return ratio(number)
    if column in _COUNTS and number.is_integer():
        return f"{int(number):,}"
    return f"{number:,.4g}"
