"""The residual stream, layer by layer, and who wrote what is read from it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tsprune.explain.overview import Explanation
from tsprune.report import palette
from tsprune.report.figures.shared import integer_step
from tsprune.report.panels import Grid, message, plain

# column -> (title, where a line is drawn, what it says)
STREAM: dict[str, tuple[str, float | None, str]] = {
    "norm": ("norm of the stream (logarithmic)", None, ""),
    "update": ("what a layer adds, relative to the norm before", 0.0, ""),
    "cosine": ("cosine with what the layer before added", 0.0, "random directions"),
}
LENS: dict[str, tuple[str, float | None, str]] = {
    "distance": ("lens: Spearman distance to the forecast", 1.0, "unrelated"),
    "spread": ("lens: 10-90 % spread, in context deviations", 0.0, ""),
    "entropy": ("lens: entropy of the next token (nats)", 0.0, ""),
    "vocabulary": ("lens: effective number of tokens", 1.0, ""),
    "peaks": ("lens: peaks of the next token's distribution", 1.0, ""),
}


def residual_stream(one: Explanation, *, columns: int | None = None) -> go.Figure:
    """Norm, updates and their cosine of every stack, and what every layer of the last would forecast."""
    panels = [(one.residual, name, *about) for name, about in STREAM.items() if name in one.residual]
    panels += [(one.lens, name, *about) for name, about in LENS.items() if name in one.lens]
    if not panels:
        return message("The residual stream was not looked at.")
    grid = Grid([plain(title) for _, _, title, _, _ in panels], columns=columns or 3, height=200)
    for panel, (table, name, _, level, words) in enumerate(panels):
        for stack, rows in table.groupby("stack", sort=False):
            trace = _layer_line(rows.sort_values("layer"), name, str(stack))
            trace.update(showlegend=panel == 0)
            grid.add(panel, trace)
        grid.x(
            panel,
            title_text="layer (-1: embedding)",
            tickformat="d",
            dtick=integer_step(float(table["layer"].max()) + 1),
        )
        if name == "norm":  # of stacks that differ by orders of magnitude
            grid.y(panel, type="log", tickmode="array", tickvals=_log_ticks(table[name]))
        if level is not None:
            grid.line(panel, level, words)
    grid.legend()
    return grid.figure


def _log_ticks(values: pd.Series[float]) -> list[float]:
    """1, 2 and 5 times the powers of ten that `values` lie among."""
    known = np.log10(values[values > 0].to_numpy(float))
    if not len(known):
        return []
    powers = range(int(np.floor(known.min())), int(np.ceil(known.max())) + 1)
    return [digit * 10.0**power for power in powers for digit in (1, 2, 5)]


def _layer_line(rows: pd.DataFrame, name: str, stack: str) -> go.Scatter:
    mean, low, high = (rows[column].to_numpy(float) for column in (name, f"{name}_low", f"{name}_high"))
    return go.Scatter(
        x=rows["layer"].to_numpy(),
        y=mean,
        error_y=_bars(mean, low, high),
        name=stack,
        legendgroup=stack,
        mode="lines+markers",
        line={"color": palette.STACK.get(stack, palette.MUTED), "width": 2},
        marker={"symbol": palette.STACK_SYMBOL.get(stack, "circle"), "size": 7},
        hovertemplate=f"{plain(stack)}, layer %{{x}}: %{{y:.3g}}<extra></extra>",
    )


def _bars(mean: object, low: object, high: object) -> dict[str, object]:
    middle, bottom, top = (np.asarray(x, dtype=np.float64) for x in (mean, low, high))
    return {
        "type": "data",
        "symmetric": False,
        "array": top - middle,
        "arrayminus": middle - bottom,
        "thickness": 1,
        "width": 3,
    }


def layer_similarity(one: Explanation, *, columns: int | None = None) -> go.Figure:
    """Linear CKA of every pair of layers of a stack; in the title, its mean with shuffled windows."""
    if not len(one.cka):
        return message("The similarity of layers was not measured.")
    stacks = {str(name): rows for name, rows in one.cka.groupby("stack", sort=False)}
    titles = [
        f"{plain(name)}<br><span style='font-size:11px'>windows of one layer shuffled: "
        f"{rows['null'].mean():.2f} on average</span>"
        for name, rows in stacks.items()
    ]
    grid = Grid(titles, columns=columns, height=280, legend_rows=1)
    for panel, rows in enumerate(stacks.values()):
        grid.add(panel, _similarity_map(rows))
        step = integer_step(float(rows["b"].max()) + 1)
        grid.x(panel, title_text="layer (-1: embedding)", tickformat="d", dtick=step)
        grid.y(panel, title_text="layer", tickformat="d", dtick=step, showgrid=False, autorange="reversed")
    grid.figure.update_layout(
        coloraxis={
            "colorscale": palette.RANK_SCALE,
            "cmin": 0,
            "cmax": 1,
            "colorbar": grid.colour_bar("linear CKA", 0.0),
        }
    )
    return grid.figure


def _similarity_map(rows: pd.DataFrame) -> go.Heatmap:
    layers = sorted({*rows["a"], *rows["b"]})
    place = {layer: index for index, layer in enumerate(layers)}
    values = np.eye(len(layers))
    notes = np.full((len(layers), len(layers)), "", dtype=object)
    for row in rows.to_dict("records"):
        for a, b in ((row["a"], row["b"]), (row["b"], row["a"])):
            values[place[a], place[b]] = row["cka"]
            notes[place[a], place[b]] = f"[{row['low']:.2f}, {row['high']:.2f}], shuffled {row['null']:.2f}"
    return go.Heatmap(
        x=layers,
        y=layers,
        z=values,
        customdata=notes,
        texttemplate="%{z:.2f}" if len(layers) <= 12 else None,
        coloraxis="coloraxis",
        xgap=1,
        ygap=1,
        hovertemplate="layers %{y} and %{x}<br>CKA %{z:.3f} %{customdata}<extra></extra>",
    )


def forecast_parts(one: Explanation, *, columns: int | None = None) -> go.Figure:
    """Share of the forecast that each part wrote, by layer: the last stack's, then the encoder's if any."""
    table = one.attribution
    if not len(table):
        return message("The forecast could not be divided among its parts.")
    stacks = {str(name): rows for name, rows in table.groupby("stack", sort=False)}
    titles = [_parts_title(name, rows, place) for place, (name, rows) in enumerate(stacks.items())]
    grid = Grid(titles, columns=columns or 1, height=300, legend_rows=1)
    for panel, rows in enumerate(stacks.values()):
        _draw_parts(grid, panel, rows)
    grid.legend()
    return grid.figure


def _parts_title(stack: str, rows: pd.DataFrame, place: int) -> str:
    total = 100 * float(rows["share"].sum())
    if place == 0:
        return f"{plain(stack)}: share of the forecast"
    return f"{plain(stack)}: share of the forecast that cross-attention fetched from it ({total:+.1f} %)"


def _draw_parts(grid: Grid, panel: int, table: pd.DataFrame) -> None:
    for kind in palette.PART:
        rows = table[table["kind"] == kind]
        if len(rows):
            grid.add(panel, _part_points(rows, kind).update(showlegend=panel == 0))
    even = 100 * float(table["share"].sum()) / len(table)
    grid.line(panel, 0.0)
    grid.line(panel, even, f"an even part: 1/{len(table)}")
    last = float(table["layer"].max())
    # room on the right for what the line says
    grid.x(panel, title_text="layer (-1: embedding)", tickformat="d", dtick=1, range=[-1.6, last + 1.4])
    grid.y(panel, title_text="% of the forecast")


def _part_points(rows: pd.DataFrame, kind: str) -> go.Scatter:
    """Heads of a layer side by side, left of its MLP."""
    number = rows.groupby("layer").cumcount()
    count = rows.groupby("layer")["part"].transform("count")
    offset = {"head": -0.3 + 0.5 * (number + 0.5) / count, "mlp": 0.3, "bias": 0.38, "embedding": 0.0}[kind]
    share, low, high = (100 * rows[name].to_numpy(float) for name in ("share", "low", "high"))
    return go.Scatter(
        x=(rows["layer"] + offset).to_numpy(float),
        y=share,
        error_y=_bars(share, low, high),
        text=[plain(str(part)) for part in rows["part"]],
        name=palette.PART_LABEL[kind],
        legendgroup=kind,
        mode="markers",
        marker={
            "color": palette.PART[kind],
            "symbol": palette.PART_SYMBOL[kind],
            "size": 6 if kind == "head" else 9,
        },
        hovertemplate="%{text}<br>%{y:+.3g} % of the forecast<extra></extra>",
    )
