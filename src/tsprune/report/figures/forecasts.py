"""Real series with their forecasts before and after an ablation, and the attention of one head on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

from tsprune.explain.portraits import Glance, Portrait
from tsprune.report import palette
from tsprune.report.figures.shared import Numbers, band, in_percent, scatter
from tsprune.report.palette import Style
from tsprune.report.panels import Grid, message, small, wrapped
from tsprune.studies.study_result import Example, ModelStudy

# the history drawn before a forecast: in horizons, and at least this many steps
_HISTORY_HORIZONS, _HISTORY_STEPS = 2, 24
_TITLE_WIDTH = 46  # characters over a panel: three panels side by side, or one on a narrow screen
_FUTURE = Style(palette.INK, "true future")
_HEAD, _EVEN = Style(palette.BLUE, "attention of this head"), Style(palette.ORANGE, "of an even head")


def forecasts(model: ModelStudy, *, columns: int | None = None) -> go.Figure:
    """Windows of real series: history, true future, and the forecast before and after an ablation."""
    if not model.examples:
        return message("No forecast was kept as an example.")
    titles = [panel_title(x.configuration, f"after: {x.ablation}") for x in model.examples]
    grid = Grid(titles, columns=columns, height=220, legend_rows=3 if columns == 1 else 1)
    draw_examples(grid, model.examples)
    return grid.legend()


def panel_title(bold: str, note: str) -> str:
    """Two lines over a panel, no wider than it."""
    return f"<b>{wrapped(bold, _TITLE_WIDTH)}</b><br>{small(wrapped(note, _TITLE_WIDTH))}"


def draw_examples(grid: Grid, examples: Sequence[Example], first: int = 0) -> None:
    """Draw each example in a panel of its own, from panel `first` on."""
    for panel, example in enumerate(examples, start=first):
        history = history_drawn(example)
        ahead = np.arange(len(example.target))
        bands, medians = [], []
        for style, forecast in ((palette.BEFORE, example.before), (palette.AFTER, example.after)):
            low, middle, high = (quantile_at(forecast, example.levels, level) for level in (0.1, 0.5, 0.9))
            colour = palette.translucent(style.colour, 0.2)
            bands.append(band(ahead, low, high, colour, f"{style.label}: 10-90 %"))
            medians.append(_line(ahead, middle, Style(style.colour, f"{style.label}: median"), width=2))
        past = _line(np.arange(-len(history), 0), history, Style(palette.MUTED, "history"), width=1.3)
        future = _line(ahead, example.target, _FUTURE, width=1.5, meta={"ink": "ink"})
        for trace in (*bands, past, future, *medians):  # bands at the back
            grid.add(panel, trace)
        grid.x(panel, title_text="steps from the start of the forecast")
        grid.row_title(panel, "value (own unit)")


def quantile_at(forecast: NDArray[np.float32], levels: Sequence[float], level: float) -> Numbers:
    """The forecast [H] at `level`, interpolated between the `levels` of `forecast` [Q, H]."""
    order = np.argsort(levels)
    known = np.asarray(levels, dtype=np.float64)[order]
    values = np.asarray(forecast, dtype=np.float64)[order]
    return np.array([np.interp(level, known, values[:, step]) for step in range(values.shape[1])])


def history_drawn(example: Example) -> Numbers:
    """The end of the context that is drawn before the forecast [steps]."""
    steps = max(_HISTORY_HORIZONS * len(example.target), _HISTORY_STEPS)
    return np.asarray(example.context, dtype=np.float64)[-steps:]


def _line(
    x: NDArray[np.int64], y: NDArray[np.floating], style: Style, *, width: float, **more: Any
) -> go.Scatter:
    hover = f"{style.label}<br>step %{{x}}: %{{y:.4g}}"
    return scatter(x, y, style, hover, mode="lines", width=width, **more)


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
