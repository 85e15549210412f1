"""The residual stream, layer by layer, and the components that wrote to it."""

from __future__ import annotations

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
            grid.add(panel, _layer_line(rows.sort_values("layer"), name, stack))
        grid.integers(panel, _LAYER, float(table["layer"].max()) + 1)
        if name == "norm":  # of stacks that differ by orders of magnitude
            grid.y(panel, type="log", tickmode="array", tickvals=_log_ticks(table[name]))
        if level is not None:
            grid.line(panel, level, label)
    return grid.legend()


def _log_ticks(values: pd.Series[float]) -> list[float]:
    """1, 2 and 5 times the powers of ten in the range of `values`."""
    known = np.log10(values[values > 0].to_numpy(float))
    if not len(known):
        return []
    powers = range(int(np.floor(known.min())), int(np.ceil(known.max())) + 1)
    return [digit * 10.0**power for power in powers for digit in (1, 2, 5)]


def _layer_line(rows: pd.DataFrame, name: str, stack: str) -> go.Scatter:
    style = palette.STACK.get(stack, palette.Style(palette.MUTED, plain(stack)))
    hover = f"{style.label}, layer %{{x}}: %{{y:.3g}}"
    return estimate_trace(rows["layer"], estimates(rows, name), style, hover, size=7)


def layer_similarity(one: Explanation, *, columns: int | None = None) -> go.Figure:
    """Linear CKA of every pair of layers of a stack; each title has its mean over shuffled windows."""
    if not len(one.cka):
        return message("The similarity of layers was not measured.")
    stacks = by_stack(one.cka)
    notes = [f"windows of one layer shuffled: {rows['null'].mean():.2f} on average" for _, rows in stacks]
    titles = [f"{plain(name)}<br>{small(note)}" for (name, _), note in zip(stacks, notes, strict=True)]
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
    titles = [_parts_title(name, rows, place) for place, (name, rows) in enumerate(stacks)]
    grid = Grid(titles, columns=columns or 1, height=300, legend_rows=1)
    for panel, (_, rows) in enumerate(stacks):
        _draw_parts(grid, panel, rows)
    return grid.legend()


def _parts_title(stack: str, rows: pd.DataFrame, place: int) -> str:
    if place == 0:
        return f"{plain(stack)}: share of the forecast"
    total = 100 * float(rows["share"].sum())
    return f"{plain(stack)}: share of the forecast that cross-attention read from it ({total:+.1f} %)"


def _draw_parts(grid: Grid, panel: int, table: pd.DataFrame) -> None:
    for kind in palette.PART:
        rows = table[table["kind"] == kind]
        if len(rows):
            grid.add(panel, _part_points(rows, kind))
    grid.line(panel, 0.0)
    grid.line(panel, 100 * float(table["share"].sum()) / len(table), f"an even part: 1/{len(table)}")
    # room on the right for the label of the line
    grid.x(panel, title_text=_LAYER, tickformat="d", dtick=1, range=[-1.6, float(table["layer"].max()) + 1.4])
    grid.y(panel, title_text="% of the forecast")


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
