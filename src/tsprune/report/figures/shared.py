"""What the figures share: units, metrics, attention sites."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
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
    """Every change of the tables and the limits of its interval, in percent: what an axis must hold."""
    columns = [f"{metric}_{what}" for metric in ("crps", "mase") for what in ("change", "low", "high")]
    return [in_percent(table[column]) for table in tables for column in columns if column in table]


def limits(rows: pd.DataFrame, metric: str) -> tuple[Floats, Floats]:
    """(low, high) of the changes' intervals, in percent; NaN where a table has none."""
    name = metric.removesuffix("_change")
    nothing = pd.Series(np.full(len(rows), np.nan), index=rows.index)
    low, high = (in_percent(rows.get(f"{name}_{side}", nothing)) for side in ("low", "high"))
    return low, high


def differs(p_holm: pd.Series[Any], low: pd.Series[Any], high: pd.Series[Any]) -> np.ndarray:
    """Where a change is a difference: by its interval, and after the correction of its family [rows]."""
    sure = (p_holm.to_numpy(dtype=float) <= 0.05) & ((low > 0) | (high < 0)).to_numpy()
    return np.asarray(sure, dtype=np.bool_)


def whiskers(change: Floats, low: Floats, high: Floats, scale: Scale, colour: str) -> dict[str, Any]:
    """Error bars from `low` to `high` around `change`, none where these are NaN, on `scale`."""
    middle = scale(change)
    return {
        "type": "data",
        "symmetric": False,
        "array": np.nan_to_num(scale(high) - middle),
        "arrayminus": np.nan_to_num(middle - scale(low)),
        "color": palette.translucent(colour, 0.55),
        "thickness": 1.3,
        "width": 3,
    }


def band(x: Floats, low: Floats, high: Floats, scale: Scale, colour: str, name: str) -> go.Scatter:
    """The area from `low` to `high` over `x`, below whatever is drawn after it."""
    return go.Scatter(
        x=np.concatenate([x, x[::-1]]),
        y=scale(np.concatenate([high, low[::-1]])),
        mode="lines",
        line={"width": 0},
        fill="toself",
        fillcolor=colour,
        name=name,
        legendgroup=name,
        hoverinfo="skip",
    )


def interval_in_words(first: int) -> str:
    """The interval whose limits are columns `first` and `first` + 1 of a trace's customdata."""
    return f"<br>95 % interval %{{customdata[{first}]:+.3g}} to %{{customdata[{first + 1}]:+.3g}} %"


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
