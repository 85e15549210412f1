"""The effect of ablating each layer, by model and for all models side by side."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tsprune.report import palette
from tsprune.report.digest import shown_metrics
from tsprune.report.figures.shared import (
    CHANGE,
    by_stack,
    change_axis,
    changes_of,
    estimate_trace,
    metric_change,
    metric_views,
)
from tsprune.report.panels import Grid, message, plain
from tsprune.report.scale import Scale, scale_for
from tsprune.studies.study_result import Study

_OFFSET = {"heads": -0.08, "mlp": 0.0, "both": 0.08}  # layers; at one place error bars would hide each other
_LONGEST = 26  # characters of a model's name beside an axis


def short(name: str) -> str:
    """The end of `name` (paths often begin alike), safe for plotly."""
    return plain(name if len(name) <= _LONGEST else "…" + name[1 - _LONGEST :])


def layer_curves(study: Study, *, columns: int | None = None) -> go.Figure:
    """Change of CRPS (or MASE) by ablating heads, MLP or both of each layer; one panel per stack."""
    panels = [(model, *part) for model in study.models for part in by_stack(model.layers)]
    if not panels:
        return message("No layer was ablated.")
    titles = [plain(f"{model.name}: {stack}") for model, stack, _ in panels]
    grid = Grid(titles, columns=columns, legend_rows=2 if columns == 1 else 1)
    scale = _layer_scale(study)
    for panel, (_, _, rows) in enumerate(panels):
        for metric, unit in itertools.product(shown_metrics(), palette.UNIT):
            part = rows[rows["unit"] == unit].sort_values("layer")
            if len(part):
                grid.add(panel, _layer_line(part, unit, metric, scale), metric)
        grid.integers(panel, "layer", rows["layer"].max())
        change_axis(grid, panel, scale, study.percent)
    grid.legend()
    return grid.buttons(metric_views())


def _layer_scale(study: Study) -> Scale:
    return scale_for(changes_of(model.layers for model in study.models), threshold=1.0)


def _layer_line(rows: pd.DataFrame, unit: str, metric: str, scale: Scale) -> go.Scatter:
    style = palette.UNIT[unit]
    hover = (
        f"layer %{{customdata[3]}}, {style.label}<br>{metric} {CHANGE}"
        "<br>Spearman distance %{customdata[4]:.3g}"
    )
    found = metric_change(rows, metric)
    extra = (rows["layer"], rows["spearman_distance"])
    return estimate_trace(rows["layer"] + _OFFSET[unit], found, style, hover, scale, extra=extra)


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
            for stack, part in by_stack(model.layers[model.layers["unit"] == unit]):
                style = _stack_style(index, model.name, stack)
                for metric in shown_metrics():
                    grid.add(panel, _depth_line(part.sort_values("layer"), style, metric, scale), metric)
        ticks = {"tickvals": [0, 0.5, 1], "ticktext": ["first", "middle", "last"]}
        grid.x(panel, title_text="depth", range=[-0.05, 1.05], **ticks)
        change_axis(grid, panel, scale, study.percent)
    grid.legend()
    return grid.buttons(metric_views())


def _stack_style(index: int, model: str, stack: str) -> palette.Style:
    """Encoders have hollow markers."""
    style = palette.numbered(index, short(model) + ("" if stack == "stack" else f", {plain(stack)}"))
    return palette.Style(style.colour, style.label, f"{style.symbol}-open") if stack == "encoder" else style


def _depth_line(rows: pd.DataFrame, style: palette.Style, metric: str, scale: Scale) -> go.Scatter:
    layers = rows["layer"].to_numpy(dtype=np.float64)
    hover = f"{style.label}, layer %{{customdata[3]}}<br>{metric} {CHANGE}"
    dash = "dot" if style.symbol.endswith("-open") else "solid"
    found = metric_change(rows, metric)
    depth = layers / max(1.0, layers.max())
    return estimate_trace(depth, found, style, hover, scale, extra=(layers,), bars=None, dash=dash)
