"""The effect of ablating each layer, by model and for all models side by side, and each MLP."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tsprune.report import palette
from tsprune.report.digest import change_column, median_mlp, shown_metrics
from tsprune.report.figures import shared
from tsprune.report.panels import Grid, Scale, message, plain, scale_for, ticks_of
from tsprune.studies.study_result import Study

_OFFSET = {"heads": -0.08, "mlp": 0.0, "both": 0.08}  # layers; at one place error bars would hide each other
_LONGEST = 26  # characters of a model's name beside an axis


def short(name: str) -> str:
    """The end of `name` (paths often begin alike), safe for plotly."""
    return plain(name if len(name) <= _LONGEST else "…" + name[1 - _LONGEST :])


def layer_curves(study: Study, *, columns: int | None = None) -> go.Figure:
    """Change of CRPS (or MASE) by ablating heads, MLP or both of each layer; one panel per stack."""
    panels = [(model, *part) for model in study.models for part in shared.by_stack(model.layers)]
    if not panels:
        return message("No layer was ablated.")
    titles = [plain(f"{model.name}: {stack}") for model, stack, _ in panels]
    grid = Grid(titles, columns=columns, legend_rows=2 if columns == 1 else 1)
    scale = _layer_scale(study)
    for panel, (_, _, rows) in enumerate(panels):
        for metric, (unit, style) in itertools.product(shown_metrics(), palette.UNIT.items()):
            part = rows[rows["unit"] == unit].sort_values("layer")
            if len(part):
                hover = f"layer %{{customdata[3]}}, {style.label}<br>{metric} {shared.CHANGE}"
                hover += "<br>Spearman distance %{customdata[4]:.3g}"
                x, found = part["layer"] + _OFFSET[unit], shared.metric_change(part, metric)
                extra = (part["layer"], part["spearman_distance"])
                grid.add(panel, shared.estimate_trace(x, found, style, hover, scale, extra=extra), metric)
        grid.integers(panel, "layer", rows["layer"].max())
        shared.change_axis(grid, panel, scale, study.percent)
    grid.legend()
    return grid.buttons(shared.metric_views())


def _layer_scale(study: Study) -> Scale:
    return scale_for(shared.changes_of(model.layers for model in study.models), threshold=1.0)


def layers_compared(study: Study, *, columns: int | None = None) -> go.Figure:
    """Change of CRPS (or MASE) over relative depth; one line per stack of a model, one panel per unit."""
    if all(model.layers.empty for model in study.models):
        return message("No layer was ablated.")
    # a legend entry takes about 230 px, and the page is 1060 or 340 px wide
    entries = sum(model.layers["stack"].nunique() for model in study.models)
    rows = entries if columns == 1 else -(-entries // 4)
    grid = Grid([style.label for style in palette.UNIT.values()], columns=columns, legend_rows=rows)
    scale = _layer_scale(study)
    for panel, unit in enumerate(palette.UNIT):
        for index, model in enumerate(study.models):
            for stack, part in shared.by_stack(model.layers[model.layers["unit"] == unit]):
                style = palette.numbered(
                    index, short(model.name) + ("" if stack == "stack" else f", {plain(stack)}")
                )
                for metric in shown_metrics():
                    line = _depth_line(part.sort_values("layer"), style, metric, scale, stack == "encoder")
                    grid.add(panel, line, metric)
        ticks = {"tickvals": [0, 0.5, 1], "ticktext": ["first", "middle", "last"]}
        grid.x(panel, title_text="depth", range=[-0.05, 1.05], **ticks)
        shared.change_axis(grid, panel, scale, study.percent)
    grid.legend()
    return grid.buttons(shared.metric_views())


def _depth_line(
    rows: pd.DataFrame, style: palette.Style, metric: str, scale: Scale, hollow: bool
) -> go.Scatter:
    layers = rows["layer"].to_numpy(dtype=np.float64)
    hover = f"{style.label}, layer %{{customdata[3]}}<br>{metric} {shared.CHANGE}"
    look: dict[str, Any] = {"bars": None, "dash": "solid"}
    if hollow:  # encoders
        style, look["dash"] = dataclasses.replace(style, symbol=f"{style.symbol}-open"), "dot"
    depth, found = layers / max(1.0, layers.max()), shared.metric_change(rows, metric)
    return shared.estimate_trace(depth, found, style, hover, scale, extra=(layers,), **look)


def mlp_sensitivity(study: Study, *, columns: int | None = None) -> go.Figure:
    """Change by ablating one MLP: one row per stack, one point per MLP, with the median as mark and words."""
    order = list(palette.ARCHITECTURE)
    models = sorted(study.models, key=lambda model: order.index(model.architecture))
    rows = [(m, *part) for m in models for part in shared.by_stack(m.layers[m.layers["unit"] == "mlp"])]
    if not rows:
        return message("No MLP was ablated.")
    narrow = columns == 1
    grid = Grid([""], columns=1, height=(58 if narrow else 44) * len(rows) + 20, legend_rows=1 + narrow)
    scale = scale_for(shared.changes_of(mlps for _, _, mlps in rows), threshold=1.0)
    for row, (model, stack, mlps) in enumerate(rows):
        style = palette.ARCHITECTURE[model.architecture]
        place = f"{short(model.name)}, {plain(stack)}"
        for metric in shown_metrics():
            grid.add(0, _mlp_points(mlps, row, style, place, metric, scale), metric)
            median = 100 * median_mlp(model, stack, change_column(metric))
            grid.add(0, _median_mark(median, row, style.colour, scale), metric)
    low, high = scale.range()
    room = (high - low) * (0.45 if narrow else 0.16)  # the medians' words stand on the right
    look = {"title_text": shared.change_title(), "showgrid": True, "range": [low, high + room]}
    grid.x(0, **look, **ticks_of(scale, dense=not narrow, most=6 if narrow else None))
    names = [short(m.name) + ("" if s == "stack" else f"<br>{plain(s)}") for m, s, _ in rows]
    grid.rows_named(0, names, margin=0.7 if narrow else 0.5)
    if narrow:  # the names stand above their rows, which take the whole width
        grid.y(0, showticklabels=False)
        for row, name in enumerate(names):
            grid.note(0, low, row - 0.32, name.replace("<br>", " "))
    grid.legend()
    return grid.buttons(shared.metric_views())


def _mlp_points(
    mlps: pd.DataFrame, row: int, style: palette.Style, place: str, metric: str, scale: Scale
) -> go.Scatter:
    found = shared.metric_change(mlps, metric)
    # a little apart, in order of layers, or error bars would hide each other
    y = row + (np.linspace(-0.22, 0.22, len(mlps)) if len(mlps) > 1 else np.zeros(1))
    hover = f"{place}.%{{customdata[3]}}.mlp<br>{metric} {shared.CHANGE}"
    data = np.column_stack([*found, mlps["layer"].to_numpy(dtype=np.float64)])
    look: dict[str, Any] = {"mode": "markers", "size": 7, "opacity": 0.9, "customdata": data}
    return shared.scatter(
        scale(found[0]), y, style, hover, error_x=shared.error_bars(found, style.colour, scale), **look
    )


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
