"""What each layer is worth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tsprune.report import palette
from tsprune.report.figures.shared import (
    METRICS,
    changes,
    in_percent,
    integer_step,
    interval_in_words,
    limits,
    mark_percent,
    metric_views,
    whiskers,
)
from tsprune.report.panels import Grid, message, plain
from tsprune.report.scale import Scale, scale_for
from tsprune.studies.study_result import Study

OFFSET = {"heads": -0.08, "mlp": 0.0, "both": 0.08}  # layers


def layer_curves(study: Study, *, columns: int | None = None) -> go.Figure:
    """Change of CRPS (or MASE) by ablating heads, MLP or both of each layer; a panel per stack."""
    panels = [
        (model, str(stack), rows)
        for model in study.models
        for stack, rows in model.layers.groupby("stack", sort=False)
    ]
    if not panels:
        return message("No layer was ablated.")
    titles = [plain(f"{model.name}: {stack}") for model, stack, _ in panels]
    grid = Grid(titles, columns=columns, legend_rows=2 if columns == 1 else 1)
    scale = scale_for(changes(m.layers for m in study.models), threshold=1.0)
    named: set[tuple[str, str]] = set()
    for panel, (_, _, rows) in enumerate(panels):
        for metric in METRICS:
            for unit, colour in palette.UNIT.items():
                part = rows[rows["unit"] == unit].sort_values("layer")
                if part.empty:
                    continue
                grid.add(panel, _layer_line(part, unit, colour, metric, scale, (metric, unit) not in named))
                named.add((metric, unit))
        grid.y_scale(panel, scale)
        grid.x(panel, title_text="layer", tickformat="d", dtick=integer_step(rows["layer"].max()))
        mark_percent(grid, panel, scale, study.percent)
        if grid.first_in_row(panel):
            grid.y(panel, title_text="change (%), lower is better")
    grid.legend()
    grid.buttons(metric_views())
    return grid.figure


def _layer_line(
    rows: pd.DataFrame, unit: str, colour: str, metric: str, scale: Scale, show: bool
) -> go.Scatter:
    change = in_percent(rows[metric])
    low, high = limits(rows, metric)
    distance = rows["spearman_distance"].to_numpy(dtype=np.float64)
    return go.Scatter(
        # side by side, or the bars would hide each other
        x=rows["layer"].to_numpy() + OFFSET[unit],
        y=scale(change),
        error_y=whiskers(change, low, high, scale, colour),
        customdata=np.column_stack([change, distance, low, high, rows["layer"].to_numpy()]),
        name=palette.UNIT_LABEL[unit],
        legendgroup=unit,
        showlegend=show,
        mode="lines+markers",
        line={"color": colour, "width": 2},
        marker={"symbol": palette.UNIT_SYMBOL[unit], "size": 8},
        meta={"view": metric},
        hovertemplate=f"layer %{{customdata[4]}}, {palette.UNIT_LABEL[unit]}<br>{METRICS[metric]} "
        f"%{{customdata[0]:+.3g}} %{interval_in_words(2)}<br>Spearman distance %{{customdata[1]:.3g}}"
        "<extra></extra>",
    )
