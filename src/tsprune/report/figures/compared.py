"""Models side by side: layers, MLPs and heads of all of them in one picture each."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tsprune.report import palette
from tsprune.report.digest import mlp_median
from tsprune.report.figures.shared import (
    METRICS,
    at_site,
    attention_sites,
    changes,
    in_percent,
    interval_in_words,
    limits,
    mark_percent,
    metric_views,
    site_name,
    whiskers,
)
from tsprune.report.panels import Grid, View, message, plain
from tsprune.report.scale import Scale, scale_for
from tsprune.studies.study_result import ModelStudy, Study

LONGEST_NAME = 26  # characters of a model's name beside an axis


def short(name: str) -> str:
    """`name` cut in front, where paths are alike, safe for plotly."""
    return plain(name if len(name) <= LONGEST_NAME else "…" + name[1 - LONGEST_NAME :])


def layers_compared(study: Study, *, columns: int | None = None) -> go.Figure:
    """Change of CRPS (or MASE) over relative depth, a line a stack of a model, a panel a unit."""
    if all(model.layers.empty for model in study.models):
        return message("No layer was ablated.")
    # a legend entry takes about 230 px, and the page is 1060 or 340 px wide
    entries = sum(model.layers["stack"].nunique() for model in study.models)
    rows = entries if columns == 1 else -(-entries // 4)
    grid = Grid([palette.UNIT_LABEL[unit] for unit in palette.UNIT], columns=columns, legend_rows=rows)
    scale = scale_for(changes(m.layers for m in study.models), threshold=1.0)
    for panel, unit in enumerate(palette.UNIT):
        for index, model in enumerate(study.models):
            for stack, rows_of in model.layers.groupby("stack", sort=False):
                part = rows_of[rows_of["unit"] == unit].sort_values("layer")
                for metric in METRICS:
                    if len(part):
                        grid.add(
                            panel, _depth_line(part, model, index, str(stack), metric, scale, panel == 0)
                        )
        grid.y_scale(panel, scale)
        grid.x(
            panel,
            title_text="depth",
            range=[-0.05, 1.05],
            tickvals=[0, 0.5, 1],
            ticktext=["first", "middle", "last"],
        )
        mark_percent(grid, panel, scale, study.percent)
        if grid.first_in_row(panel):
            grid.y(panel, title_text="change (%), lower is better")
    grid.legend()
    grid.buttons(metric_views())
    return grid.figure


def _depth_line(
    part: pd.DataFrame, model: ModelStudy, index: int, stack: str, metric: str, scale: Scale, show: bool
) -> go.Scatter:
    layers = part["layer"].to_numpy(dtype=np.float64)
    change = in_percent(part[metric])
    colour = palette.MODEL[index % len(palette.MODEL)]
    symbol = palette.MODEL_SYMBOL[index % len(palette.MODEL_SYMBOL)]
    label = short(model.name) + ("" if stack == "stack" else f", {plain(stack)}")
    return go.Scatter(
        x=layers / max(1.0, layers.max()),
        y=scale(change),
        customdata=np.column_stack([layers, change, *limits(part, metric)]),
        name=label,
        legendgroup=label,
        showlegend=show,
        mode="lines+markers",
        line={"color": colour, "width": 2, "dash": "dot" if stack == "encoder" else "solid"},
        marker={"symbol": f"{symbol}-open" if stack == "encoder" else symbol, "size": 8},
        meta={"view": metric},
        hovertemplate=f"{label}, layer %{{customdata[0]}}<br>{METRICS[metric]} %{{customdata[1]:+.3g}} %"
        f"{interval_in_words(2)}<extra></extra>",
    )


def mlp_sensitivity(study: Study, *, columns: int | None = None) -> go.Figure:
    """What ablating one MLP costs: a row a stack, a point an MLP, the median beside it in words."""
    rows = [
        (model, str(stack), mlps)
        for kind in palette.ARCHITECTURE
        for model in study.models
        if model.architecture == kind
        for stack, mlps in model.layers[model.layers["unit"] == "mlp"].groupby("stack", sort=False)
    ]
    if not rows:
        return message("No MLP was ablated.")
    grid = Grid([""], columns=1, height=44 * len(rows) + 20, legend_rows=2 if columns == 1 else 1)
    scale = scale_for(changes(mlps for _, _, mlps in rows), threshold=1.0)
    named: set[tuple[str, str]] = set()
    for row, (model, stack, mlps) in enumerate(rows):
        for metric in METRICS:
            kind = model.architecture
            middle = 100 * mlp_median(model, stack, metric)
            points, median = _mlp_points(mlps, middle, row, kind, metric, scale)
            points.showlegend = (metric, kind) not in named
            named.add((metric, kind))
            points.hovertemplate = (
                f"{short(model.name)}, {plain(stack)}.%{{customdata[0]}}.mlp<br>{METRICS[metric]} "
                f"%{{customdata[1]:+.3g}} %{interval_in_words(2)}<extra></extra>"
            )
            grid.add(0, points)
            grid.add(0, median)
    positions, labels = scale.ticks(dense=columns != 1)
    low, high = scale.range()
    look = {"tickmode": "array", "tickvals": positions, "ticktext": labels} if labels else {}
    # the medians' words stand to the right of everything
    room = (high - low) * (0.45 if columns == 1 else 0.16)
    grid.x(0, title_text="change (%), lower is better", showgrid=True, range=[low, high + room], **look)
    grid.y(
        0,
        tickvals=list(range(len(rows))),
        ticktext=[short(m.name) + ("" if s == "stack" else f"<br>{plain(s)}") for m, s, _ in rows],
        range=[len(rows) - 0.5, -0.5],
        showgrid=False,
    )
    grid.legend()
    grid.buttons(metric_views())
    return grid.figure


def _mlp_points(
    mlps: pd.DataFrame, median: float, row: int, kind: str, metric: str, scale: Scale
) -> tuple[go.Scatter, go.Scatter]:
    change = in_percent(mlps[metric])
    low, high = limits(mlps, metric)
    points = go.Scatter(
        x=scale(change),
        # a little apart, in order of layers, or error bars would hide each other
        y=row + np.linspace(-0.22, 0.22, len(mlps)) if len(mlps) > 1 else np.full(1, float(row)),
        error_x=whiskers(change, low, high, scale, palette.ARCHITECTURE[kind]),
        customdata=np.column_stack([mlps["layer"].to_numpy(dtype=np.float64), change, low, high]),
        name=kind,
        legendgroup=kind,
        mode="markers",
        marker={
            "color": palette.ARCHITECTURE[kind],
            "symbol": palette.ARCHITECTURE_SYMBOL[kind],
            "size": 7,
            "opacity": 0.9,
        },
        meta={"view": metric},
    )
    words = go.Scatter(
        x=[float(scale(median)), scale.range()[1]],
        y=[row, row],
        mode="markers+text",
        marker={
            "symbol": "line-ns",
            "size": [30, 0],
            "line": {"color": palette.ARCHITECTURE[kind], "width": [3, 0]},
        },
        text=["", f"median {median:+.3g} %"],
        textposition="middle right",
        textfont={"size": 11},
        cliponaxis=False,
        showlegend=False,
        hoverinfo="skip",
        meta={"view": metric},
    )
    return points, words


def heads_at_compared(study: Study, *, columns: int | None = None) -> go.Figure:
    """Share of each layer's heads that must stay, a row an attention sublayer of a model."""
    rows = [
        (model, site, at_site(model.heads_at, site))
        for model in study.models
        for site in attention_sites(model.heads_at)
    ]
    if not rows:
        return message("heads@ was not measured.")
    grid = Grid([""], columns=1, height=38 * len(rows) + 20, legend_rows=0)
    last = max(int(table["layer"].max()) for _, _, table in rows)
    for selection in palette.SELECTION:
        share = np.full((len(rows), last + 1), np.nan)
        words = np.full((len(rows), last + 1), "", dtype=object)
        for row, (_, _, table) in enumerate(rows):
            for cell in table[table["selection"] == selection].to_dict("records"):
                share[row, int(cell["layer"])] = cell["heads_at"] / cell["heads"]
                words[row, int(cell["layer"])] = f"{int(cell['heads_at'])}/{int(cell['heads'])}"
        grid.add(
            0,
            go.Heatmap(
                z=share,
                text=words,
                texttemplate="%{text}",
                textfont={"size": 10 if columns == 1 else 12},
                coloraxis="coloraxis",
                xgap=2,
                ygap=2,
                meta={"view": selection},
                hovertemplate="layer %{x}: %{text} heads must stay<extra></extra>",
            ),
        )
    grid.x(0, title_text="layer", tickformat="d", dtick=1, side="bottom")
    grid.y(
        0,
        tickvals=list(range(len(rows))),
        ticktext=[f"{short(model.name)}<br>{plain(site_name(site))}" for model, site, _ in rows],
        range=[len(rows) - 0.5, -0.5],
        showgrid=False,
    )
    grid.figure.update_layout(
        coloraxis={
            "colorscale": [list(step) for step in palette.SHARE_SCALE],
            "cmin": 0,
            "cmax": 1,
            "showscale": False,
        }
    )
    grid.buttons([View(selection, f"chosen on {selection}") for selection in palette.SELECTION])
    return grid.figure
