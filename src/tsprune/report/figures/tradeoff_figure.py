"""Accuracy against time of pruned models."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from tsprune.report import palette
from tsprune.report.digest import shown_metrics
from tsprune.report.figures.shared import (
    CHANGE,
    change_axis,
    changes_of,
    error_bars,
    estimate_trace,
    estimates,
    from_zero,
    metric_change,
    metric_views,
)
from tsprune.report.panels import Grid, message, plain
from tsprune.report.scale import Scale, scale_for


def accuracy_against_time(
    table: pd.DataFrame, *, percent: float = 1.0, columns: int | None = None
) -> go.Figure:
    """Change of MASE (or CRPS) against the time of a forecast, one line per way of removing components.

    table : as `tsprune.pruning.tradeoff` returns it
    percent : the loss to mark
    """
    if table.empty:
        return message("Nothing was removed.")
    grid = Grid([""], columns=1, height=420, legend_rows=2 if columns == 1 else 1)
    scale = scale_for(changes_of([table]), threshold=1.0)
    for metric in reversed(shown_metrics()):  # MASE first: plans are searched by it
        for way, rows in table.groupby("way", sort=False):
            grid.add(0, _way_line(rows, palette.WAY[str(way)], metric, scale), metric)
    grid.x(0, title_text="time of a forecast (% of the original's)")
    change_axis(grid, 0, scale, percent)
    grid.legend()
    return grid.buttons(metric_views()[::-1])


def _way_line(rows: pd.DataFrame, style: palette.Style, metric: str, scale: Scale) -> go.Scatter:
    """From the original (100 % of the time, no change) on."""
    change = from_zero(metric_change(rows, metric))
    time = from_zero(estimates(rows, "ratio", factor=100), 100.0)
    hover = f"{style.label}: %{{x:.3g}} % of the time<br>{metric} {CHANGE}<br>removed: %{{text}}"
    text = ["nothing", *(plain(_shortened(addresses)) for addresses in rows["what"])]
    return estimate_trace(
        time[0], change, style, hover, scale, error_x=error_bars(time, style.colour), text=text
    )


def _shortened(addresses: str, most: int = 6) -> str:
    """The first addresses, and the number of further ones."""
    names = addresses.split()
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
