"""Data frames as tables for the page: headings with units, readable cells, exact values kept."""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
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
    "ratio": "time / original's",
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
_LOW, _HIGH = "low", "high"


@dataclasses.dataclass(frozen=True)
class TableCell:
    """`text` is for reading, `value` the exact number (as text) for sorting and copying.

    high : of an interval, whose lower limit is `value`
    """

    text: str
    value: str | None = None
    high: str | None = None


@dataclasses.dataclass(frozen=True)
class Table:
    """A titled table; `numeric[i]` tells whether column i holds numbers, `about[i]` describes it."""

    title: str
    columns: tuple[str, ...]
    about: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[TableCell, ...], ...]


def page_table(title: str, frame: pd.DataFrame, schema: Schema | None = None) -> Table:
    """`frame` with its columns in the order they have; limits of an interval share one column.

    schema : describes the columns

    Raises TspruneError for a column that `schema` lacks.
    """
    names = [str(name) for name in frame.columns]
    shown = [name for name in names if not (_is(name, _HIGH) and _other(name) in names)]
    rows = tuple(
        tuple(_cell_of(name, dict(zip(names, row, strict=True))) for name in shown)
        for row in frame.itertuples(index=False, name=None)
    )
    numeric = tuple(bool(rows) and all(row[i].value is not None for row in rows) for i in range(len(shown)))
    about = tuple("" if schema is None or name == "model" else schema[name].about for name in shown)
    return Table(title, tuple(_heading(name, names) for name in shown), about, numeric, rows)


def _is(name: str, side: str) -> bool:
    return name == side or name.endswith(f"_{side}")


def _other(name: str) -> str:
    """The lower limit's column of an upper limit's, and the other way round."""
    side, other = (_HIGH, _LOW) if _is(name, _HIGH) else (_LOW, _HIGH)
    return name.removesuffix(side) + other


def _heading(name: str, names: list[str]) -> str:
    if _is(name, _LOW) and _other(name) in names:
        return "95 % interval"
    return (_HEADINGS | _metric_headings()).get(name, name.replace("_", " "))


@functools.cache
def _metric_headings() -> dict[str, str]:
    names = [{"name": metric.name, "key": metric.key} for metric in METRICS.values()]
    return {k.format(**one): v.format(**one) for one in names for k, v in _METRIC_HEADINGS.items()}


def _cell_of(name: str, row: dict[str, Any]) -> TableCell:
    if not (_is(name, _LOW) and _other(name) in row):
        return _cell(name, row[name])
    low, high = float(row[name]), float(row[_other(name)])
    stem = name.removesuffix(_LOW)
    change = f"{stem}change" in row or (not stem and "difference" in row)
    text = between(low, high) if change else f"{low:,.3g} to {high:,.3g}"
    return TableCell(MISSING if math.isnan(low) else text, repr(low), repr(high))


def _cell(column: str, value: Any) -> TableCell:
    """One value, formatted by the unit of its column."""
    if value is None or value is pd.NA:
        return TableCell(MISSING, "nan")
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return TableCell(str(value))
    number = float(value)
    return TableCell(_readable(column, number), repr(number))


def _readable(column: str, number: float) -> str:
    if math.isnan(number):
        return MISSING
    if column.endswith("_change") or column == "difference":
        return percent(number)
    if column == "parameters":
        return parameters(int(number))
    if column.endswith("_ratio"):
        return ratio(number)
    if column in _COUNTS and number.is_integer():
        return f"{int(number):,}"
    return f"{number:,.4g}"
