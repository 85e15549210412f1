"""One head: its attention map on a real window, the last position's view, lags, forecasts without it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from tsprune.explain.portraits import Glance, Portrait
from tsprune.report import palette
from tsprune.report.figures.forecasts import draw_examples, panel_title
from tsprune.report.figures.shared import Numbers, in_percent, scatter
from tsprune.report.palette import Style
from tsprune.report.panels import Grid, message

_HEAD, _EVEN = Style(palette.BLUE, "attention of this head"), Style(palette.ORANGE, "of an even head")


def head_portrait(one: Portrait, profile: pd.DataFrame, *, columns: int | None = None) -> go.Figure:
    """Three panels of attention over time, if there is any, and one per forecast with and without the head.

    profile : lag profile of this head (`Explanation.profile`), empty if it has none
    """
    titles = [panel_title(example.configuration, example.ablation) for example in one.examples]
    if one.glance is not None:
        attention = (
            panel_title("attention map", f"full blue: {_top(one.glance):.2f}"),
            panel_title("from its last position", one.glance.configuration),
            panel_title("lag profile", "mean over all windows"),
        )
        titles = [*attention, *titles]
    if not titles:
        return message("Nothing was measured on this head.")
    grid = Grid(titles, columns=columns or 3, height=200, legend_rows=4 if columns == 1 else 2)
    if one.glance is not None:
        _draw_map(grid, one.glance)
        _draw_view(grid, one.glance)
        _draw_lags(grid, one.glance, profile)
    draw_examples(grid, one.examples, len(titles) - len(one.examples))
    return grid.legend()


def _top(glance: Glance) -> float:
    """The weight drawn in the strongest colour, in both panels of a window."""
    return max(float(np.nanmax(glance.weights, initial=0.0)), 1e-6)


def _weights(glance: Glance, z: ArrayLike, hover: str, **more: object) -> go.Heatmap:
    look = {"zmin": 0, "zmax": _top(glance), "colorscale": palette.ATTENTION_SCALE, "showscale": False}
    cells = np.asarray(z, dtype=np.float64)
    return go.Heatmap(z=cells, hovertemplate=f"{hover}<br>weight %{{z:.3f}}<extra></extra>", **look, **more)


def _draw_map(grid: Grid, glance: Glance) -> None:
    queries, keys = (
        ["register or end" if np.isnan(time) else f"step {time:.0f}" for time in times]
        for times in (glance.queries, glance.keys)
    )
    text = [[f"query {query}<br>key {key}" for key in keys] for query in queries]
    grid.add(0, _weights(glance, glance.weights, "%{text}", text=text))
    grid.x(0, title_text="key position", tickformat="d")
    grid.y(0, title_text="query position", tickformat="d", showgrid=False, autorange="reversed")
    if len(glance.queries) == 1:  # a decoder's only token
        grid.y(0, tickmode="array", tickvals=[0], ticktext=["0"])


def last_view(glance: Glance) -> tuple[Numbers, Numbers] | None:
    """Weights [M] of the last query that has a time, on the M keys that have one, and their times [M]."""
    timed = np.flatnonzero(np.isfinite(glance.queries))
    keys = np.flatnonzero(np.isfinite(glance.keys))
    if not len(timed) or not len(keys):
        return None
    return glance.weights[timed[-1], keys].astype(np.float64), glance.keys[keys].astype(np.float64)


def _draw_view(grid: Grid, glance: Glance) -> None:
    series = glance.series.astype(np.float64)
    seen = last_view(glance)
    if seen is not None:
        weights, times = seen
        low, high = float(np.nanmin(series)), float(np.nanmax(series))
        edges = np.concatenate([[times[0] - glance.span], times]) + 0.5
        heights = [low, high if high > low else low + 1]
        grid.add(1, _weights(glance, weights[None], "step %{x:.0f}", x=edges, y=heights))
    x, hover = np.arange(1 - len(series), 1), "step %{x}: %{y:.4g}"
    grid.add(1, scatter(x, series, Style(palette.INK), hover, mode="lines", width=1, meta={"ink": "ink"}))
    grid.x(1, title_text="steps before the end of the context")
    grid.y(1, showgrid=False)


def _draw_lags(grid: Grid, glance: Glance, profile: pd.DataFrame) -> None:
    names = ["lag", "mass", "uniform"]
    rows = profile.sort_values("lag") if len(profile) else pd.DataFrame(columns=names, dtype=float)
    rows = rows[rows[names[1:]].max(axis=1) > 0]  # without lags no query may attend to: the future, mostly
    bars = go.Bar(
        x=rows["lag"].to_numpy(float),
        y=in_percent(rows["mass"]),
        width=0.9 * glance.span,
        marker={"color": _HEAD.colour},
        name=_HEAD.label,
        legendgroup=_HEAD.label,
        hovertemplate="%{x:.0f} steps back: %{y:.3g} %<extra></extra>",
    )
    hover = "%{x:.0f} steps back: %{y:.3g} % of an even head's"
    even = scatter(
        rows["lag"], in_percent(rows["uniform"]), _EVEN, hover, mode="lines", dash="dot", width=1.5
    )
    grid.add(2, bars)
    grid.add(2, even)
    grid.x(2, title_text="time steps back (below 0: ahead)")
    grid.y(2, title_text="% of attention", rangemode="tozero")
