"""Accuracy against time of pruned models."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tsprune.report import palette
from tsprune.report.figures.shared import (
    METRICS,
    changes,
    in_percent,
    interval_in_words,
    limits,
    mark_percent,
    metric_views,
    whiskers,
)
from tsprune.report.panels import Grid, message, plain
from tsprune.report.scale import Scale, scale_for


def accuracy_against_time(
    table: pd.DataFrame, *, percent: float = 1.0, columns: int | None = None
) -> go.Figure:
    """Change of MASE (or CRPS) against the time of a forecast, a line for each way of removing.

    table : as `tsprune.pruning.tradeoff` returns it
    percent : the loss that is marked
    """
    if table.empty:
        return message("Nothing was removed.")
    grid = Grid([""], columns=1, height=420, legend_rows=2 if columns == 1 else 1)
    scale = scale_for(changes([table]), threshold=1.0)
    for metric in reversed(METRICS):  # MASE first: it is what plans are searched by
        for way, rows in table.groupby("way", sort=False):
            grid.add(0, _line(str(way), rows, metric, scale))
    grid.x(0, title_text="time of a forecast (% of the original's)")
    grid.y(0, title_text="change (%), lower is better")
    grid.y_scale(0, scale)
    mark_percent(grid, 0, scale, percent)
    grid.legend()
    grid.buttons(metric_views()[::-1])
    return grid.figure


def _line(way: str, rows: pd.DataFrame, metric: str, scale: Scale) -> go.Scatter:
    """One way, from the original (at 100 % and no change) on."""
    colour, symbol = palette.WAY[way], palette.WAY_SYMBOL[way]
    change, low, high = (
        np.concatenate([[0.0], values]) for values in (in_percent(rows[metric]), *limits(rows, metric))
    )
    time, fast, slow = (
        np.concatenate([[100.0], in_percent(rows[name])]) for name in ("ratio", "ratio_low", "ratio_high")
    )
    what = ["nothing", *(plain(_shortened(text)) for text in rows["what"])]
    return go.Scatter(
        x=time,
        y=scale(change),
        error_x={
            "type": "data",
            "symmetric": False,
            "array": slow - time,
            "arrayminus": time - fast,
            "color": palette.translucent(colour, 0.55),
            "thickness": 1.3,
            "width": 3,
        },
        error_y=whiskers(change, low, high, scale, colour),
        customdata=[list(row) for row in zip(change, low, high, what, strict=True)],
        meta={"view": metric},
        name=palette.WAY_LABEL[way],
        legendgroup=way,
        mode="lines+markers",
        line={"color": colour, "width": 2},
        marker={"symbol": symbol, "size": 8},
        hovertemplate=f"{palette.WAY_LABEL[way]}: %{{x:.3g}} % of the time<br>{METRICS[metric]} "
        f"%{{customdata[0]:+.3g}} %{interval_in_words(1)}<br>gone: %{{customdata[3]}}<extra></extra>",
    )


def _shortened(what: str, most: int = 6) -> str:
    """The first of the addresses, and how many more there are."""
    names = what.split()
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
