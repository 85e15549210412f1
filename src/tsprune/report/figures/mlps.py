"""The effect of ablating single MLPs, by architecture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tsprune.report import palette
from tsprune.report.digest import change_column, median_mlp, shown_metrics
from tsprune.report.figures.layers import short
from tsprune.report.figures.shared import (
    CHANGE,
    by_stack,
    changes_of,
    error_bars,
    metric_change,
    metric_views,
    scatter,
)
from tsprune.report.panels import Grid, message, plain, ticks_of
from tsprune.report.scale import Scale, scale_for
from tsprune.studies.study_result import Study


def mlp_sensitivity(study: Study, *, columns: int | None = None) -> go.Figure:
    """Change by ablating one MLP: one row per stack, one point per MLP, with the median as mark and words."""
    order = list(palette.ARCHITECTURE)
    models = sorted(study.models, key=lambda model: order.index(model.architecture))
    rows = [(m, *part) for m in models for part in by_stack(m.layers[m.layers["unit"] == "mlp"])]
    if not rows:
        return message("No MLP was ablated.")
    grid = Grid([""], columns=1, height=44 * len(rows) + 20, legend_rows=2 if columns == 1 else 1)
    scale = scale_for(changes_of(mlps for _, _, mlps in rows), threshold=1.0)
    for row, (model, stack, mlps) in enumerate(rows):
        style = palette.ARCHITECTURE[model.architecture]
        place = f"{short(model.name)}, {plain(stack)}"
        for metric in shown_metrics():
            grid.add(0, _mlp_points(mlps, row, style, place, metric, scale), metric)
            median = 100 * median_mlp(model, stack, change_column(metric))
            grid.add(0, _median_mark(median, row, style.colour, scale), metric)
    low, high = scale.range()
    room = (high - low) * (0.45 if columns == 1 else 0.16)  # the medians' words stand on the right
    look = {"title_text": "change (%), lower is better", "showgrid": True, "range": [low, high + room]}
    grid.x(0, **look, **ticks_of(scale, dense=columns != 1))
    names = [short(m.name) + ("" if s == "stack" else f"<br>{plain(s)}") for m, s, _ in rows]
    grid.rows_named(0, names)
    grid.legend()
    return grid.buttons(metric_views())


def _mlp_points(
    mlps: pd.DataFrame, row: int, style: palette.Style, place: str, metric: str, scale: Scale
) -> go.Scatter:
    found = metric_change(mlps, metric)
    # a little apart, in order of layers, or error bars would hide each other
    y = row + (np.linspace(-0.22, 0.22, len(mlps)) if len(mlps) > 1 else np.zeros(1))
    hover = f"{place}.%{{customdata[3]}}.mlp<br>{metric} {CHANGE}"
    data = np.column_stack([*found, mlps["layer"].to_numpy(dtype=np.float64)])
    bars = error_bars(found, style.colour, scale)
    look: dict[str, Any] = {"mode": "markers", "size": 7, "opacity": 0.9}
    return scatter(scale(found[0]), y, style, hover, error_x=bars, customdata=data, **look)


def _median_mark(median: float, row: int, colour: str, scale: Scale) -> go.Scatter:
    """An upright line at the median, and its value in words at the right edge."""
    return go.Scatter(
        x=[float(scale(median)), scale.range()[1]],
        y=[row, row],
        mode="markers+text",
        marker={"symbol": "line-ns", "size": [30, 0], "line": {"color": colour, "width": [3, 0]}},
        text=["", f"median {median:+.3g} %"],
        textposition="middle right",
        textfont={"size": 11},
        cliponaxis=False,
        hoverinfo="skip",
    )
