"""What the figures share: units, metrics, attention sites."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsprune.report import palette
from tsprune.report.panels import Grid, View
from tsprune.report.scale import Scale

METRICS = {"crps_change": "CRPS", "mase_change": "MASE"}
VARIANTS = {"stable_rank": "paper", "stable_rank_effective": "effective"}

Floats = NDArray[np.float64]


def in_percent(values: pd.Series[Any]) -> Floats:
    """A column of fractions as percent [rows]."""
    return 100 * np.asarray(values, dtype=np.float64)


def changes(tables: Iterable[pd.DataFrame]) -> list[Floats]:
    return [in_percent(table[metric]) for table in tables for metric in METRICS if metric in table]


def metric_views() -> list[View]:
    return [View(metric, name) for metric, name in METRICS.items()]


def attention_sites(table: pd.DataFrame) -> list[tuple[str, str]]:
    """(stack, attention) of every kind of attention sublayer, in order of appearance."""
    found = table[["stack", "attention"]].drop_duplicates()
    return [(str(stack), str(attention)) for stack, attention in found.itertuples(index=False)]


def at_site(table: pd.DataFrame, site: tuple[str, str]) -> pd.DataFrame:
    return table[(table["stack"] == site[0]) & (table["attention"] == site[1])]


def site_name(site: tuple[str, str]) -> str:
    return f"{site[0]}, {site[1]}-attention"


def integer_step(last: float) -> int:
    """Distance between ticks that are layers or heads 0..last."""
    return max(1, int(np.ceil((last + 1) / 12)))


def mark_percent(grid: Grid, panel: int, scale: Scale, percent: float) -> None:
    grid.line(panel, 0.0)
    label = f"+{percent:g} %"
    grid.line(panel, float(scale(percent)), label, colour=palette.MUTED)
