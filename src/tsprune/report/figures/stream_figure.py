"""The residual stream, layer by layer, and the components that wrote to it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tsprune.explain.overview import Explanation
from tsprune.report import palette
from tsprune.report.figures.shared import by_stack, estimate_trace, estimates, heat_map
from tsprune.report.panels import Grid, integer_step, message, plain, small

_LAYER = "layer (-1: embedding)"
# column -> (title, position of a line, its label)
_STREAM: dict[str, tuple[str, float | None, str]] = {
    "norm": ("norm of the stream (logarithmic)", None, ""),
    "update": ("norm of a layer's update, relative to the norm before", 0.0, ""),
    "cosine": ("cosine with the update of the layer before", 0.0, "random directions"),
}
_LENS: dict[str, tuple[str, float | None, str]] = {
    "distance": ("lens: Spearman distance to the forecast", 1.0, "unrelated"),
    "spread": ("lens: 10-90 % spread, in context deviations", 0.0, ""),
    "entropy": ("lens: entropy of the next token (nats)", 0.0, ""),
    "vocabulary": ("lens: effective number of tokens", 1.0, ""),
    "peaks": ("lens: peaks of the next token's distribution", 1.0, ""),
}


def residual_stream(one: Explanation, *, columns: int | None = None) -> go.Figure:
    """Norm, updates and their cosine in every stack; the lens (early readout) in the last."""
    panels = [(one.residual, name, *about) for name, about in _STREAM.items() if name in one.residual]
    panels += [(one.lens, name, *about) for name, about in _LENS.items() if name in one.lens]
    if not panels:
        return message("The residual stream was not measured.")
    grid = Grid([plain(title) for _, _, title, _, _ in panels], columns=columns or 3, height=200)
    for panel, (table, name, _, level, label) in enumerate(panels):
        for stack, rows in by_stack(table):
            style = palette.STACK.get(stack, palette.Style(palette.MUTED, plain(stack)))
            hover, rows = f"{style.label}, layer %{{x}}: %{{y:.3g}}", rows.sort_values("layer")
            grid.add(panel, estimate_trace(rows["layer"], estimates(rows, name), style, hover, size=7))
        grid.integers(panel, _LAYER, float(table["layer"].max()) + 1)
        if name == "norm":  # of stacks that differ by orders of magnitude
            known = np.log10(table.loc[table[name] > 0, name].to_numpy(float))
            powers = range(math.floor(known.min()), math.ceil(known.max()) + 1) if len(known) else ()
            ticks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
            grid.y(panel, type="log", tickmode="array", tickvals=ticks)
        if level is not None:
            grid.line(panel, level, label)
    return grid.legend()


def layer_similarity(one: Explanation, *, columns: int | None = None) -> go.Figure:
    """Linear CKA of every pair of layers of a stack; each title has its mean over shuffled windows."""
    if not len(one.cka):
        return message("The similarity of layers was not measured.")
    stacks, titles = by_stack(one.cka), []
    for name, rows in stacks:
        note = f"windows of one layer shuffled: {rows['null'].mean():.2f} on average"
        titles.append(f"{plain(name)}<br>{small(note)}")
    grid = Grid(titles, columns=columns, height=280, legend_rows=1)
    for panel, (_, rows) in enumerate(stacks):
        grid.add(panel, _similarity_map(rows))
        last = float(rows["b"].max()) + 1
        grid.integers(panel, _LAYER, last)
        look = {"tickformat": "d", "dtick": integer_step(last), "showgrid": False, "autorange": "reversed"}
        grid.y(panel, title_text="layer", **look)
    grid.colours(palette.RANK_SCALE, 0, 1, "linear CKA")
    return grid.figure


def _similarity_map(rows: pd.DataFrame) -> go.Heatmap:
    layers = sorted({*rows["a"], *rows["b"]})
    place = {layer: index for index, layer in enumerate(layers)}
    values = np.eye(len(layers))
    notes = np.full(values.shape, "", dtype=object)
    for row in rows.to_dict("records"):
        a, b = place[row["a"]], place[row["b"]]
        values[[a, b], [b, a]] = row["cka"]
        notes[[a, b], [b, a]] = f"[{row['low']:.2f}, {row['high']:.2f}], shuffled {row['null']:.2f}"
    text = "%{z:.2f}" if len(layers) <= 12 else None
    hover = "layers %{y} and %{x}<br>CKA %{z:.3f} %{customdata}"
    return heat_map(values, hover, x=layers, y=layers, customdata=notes, texttemplate=text)


def forecast_parts(one: Explanation, *, columns: int | None = None) -> go.Figure:
    """Share of the forecast written by each component, by layer: of the last stack, then of an encoder."""
    if not len(one.attribution):
        return message("The forecast could not be attributed to components.")
    stacks = by_stack(one.attribution)
    titles = [f"{plain(name)}: share of the forecast" for name, _ in stacks]
    for place, (_, rows) in enumerate(stacks[1:], start=1):
        total = 100 * float(rows["share"].sum())
        titles[place] += f" that cross-attention read from it ({total:+.1f} %)"
    grid = Grid(titles, columns=columns or 1, height=300, legend_rows=1)
    for panel, (_, table) in enumerate(stacks):
        for kind in palette.PART:
            rows = table[table["kind"] == kind]
            if len(rows):
                grid.add(panel, _part_points(rows, kind))
        grid.line(panel, 0.0)
        grid.line(panel, 100 * float(table["share"].sum()) / len(table), f"an even part: 1/{len(table)}")
        # room on the right for the label of the line
        reach = [-1.6, float(table["layer"].max()) + 1.4]
        grid.x(panel, title_text=_LAYER, tickformat="d", dtick=1, range=reach)
        grid.y(panel, title_text="% of the forecast")
    return grid.legend()


def _part_points(rows: pd.DataFrame, kind: str) -> go.Scatter:
    """Heads of a layer side by side, left of its MLP."""
    number = rows.groupby("layer").cumcount()
    count = rows.groupby("layer")["part"].transform("count")
    offset = {"head": -0.3 + 0.5 * (number + 0.5) / count, "mlp": 0.3, "bias": 0.38, "embedding": 0.0}[kind]
    found = estimates(rows, "share", factor=100)
    text = [plain(part) for part in rows["part"]]
    look: dict[str, Any] = {"mode": "markers", "size": 6 if kind == "head" else 9, "text": text}
    hover = "%{text}<br>%{y:+.3g} % of the forecast"
    return estimate_trace(rows["layer"] + offset, found, palette.PART[kind], hover, **look)
