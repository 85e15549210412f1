"""One head: its map on a real window, where it looks from the end of that, lags, forecasts without it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tsprune.explain.portraits import Glance, Portrait
from tsprune.report import palette
from tsprune.report.figures.forecasts import draw_examples, panel_title
from tsprune.report.panels import Grid, message, plain


def head_portrait(one: Portrait, profile: pd.DataFrame, *, columns: int | None = None) -> go.Figure:
    """Three panels of attention, if there is any over time, and one a forecast with and without the head.

    profile : lag profile of this head (`Explanation.profile`), empty if it has none
    """
    looks = one.glance is not None
    titles = [_window_title(one.glance), _view_title(one.glance), _lag_title()] if one.glance else []
    titles += [panel_title(x.configuration, x.ablation) for x in one.examples]
    if not titles:
        return message("Nothing is known of this head.")
    grid = Grid(titles, columns=columns or 3, height=200, legend_rows=4 if columns == 1 else 2)
    if one.glance is not None:
        _draw_map(grid, one.glance)
        _draw_view(grid, one.glance)
        _draw_lags(grid, one.glance, profile)
    draw_examples(grid, one.examples, 3 * looks)
    grid.legend()
    return grid.figure


def _top(glance: Glance) -> float:
    """The weight that has the strongest colour, in both pictures of a window."""
    return max(float(np.nanmax(glance.weights, initial=0.0)), 1e-6)


def _window_title(glance: Glance) -> str:
    top = _top(glance)
    return panel_title("attention map", f"full blue: {top:.2f}")


def _view_title(glance: Glance) -> str:
    return panel_title("from its last position", glance.configuration)


def _lag_title() -> str:
    return panel_title("lag profile", "mean over all windows")


def _draw_map(grid: Grid, glance: Glance) -> None:
    times = [
        ["register or end" if np.isnan(time) else f"step {time:.0f}" for time in which]
        for which in (glance.queries, glance.keys)
    ]
    text = [[f"query {q}<br>key {k}" for k in times[1]] for q in times[0]]
    grid.add(
        0,
        go.Heatmap(
            z=glance.weights.astype(np.float64),
            text=text,
            zmin=0,
            zmax=_top(glance),
            colorscale=[list(step) for step in palette.ATTENTION_SCALE],
            showscale=False,
            hovertemplate="%{text}<br>weight %{z:.3f}<extra></extra>",
        ),
    )
    grid.x(0, title_text="key position", tickformat="d")
    grid.y(0, title_text="query position", tickformat="d", showgrid=False, autorange="reversed")
    if len(glance.queries) == 1:  # a decoder's only token
        grid.y(0, tickmode="array", tickvals=[0], ticktext=["0"])


def last_view(glance: Glance) -> tuple[np.ndarray, np.ndarray] | None:  # type: ignore[type-arg]
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
        grid.add(
            1,
            go.Heatmap(
                x=edges,
                y=[low, high if high > low else low + 1],
                z=weights[None],
                zmin=0,
                zmax=_top(glance),
                colorscale=[list(step) for step in palette.ATTENTION_SCALE],
                showscale=False,
                hovertemplate="step %{x:.0f}<br>weight %{z:.3f}<extra></extra>",
            ),
        )
    line = go.Scatter(
        x=np.arange(1 - len(series), 1),
        y=series,
        mode="lines",
        line={"color": palette.INK, "width": 1},
        meta={"ink": "ink"},
        showlegend=False,
        hovertemplate="step %{x}: %{y:.4g}<extra></extra>",
    )
    grid.add(1, line)
    grid.x(1, title_text="steps before the end of the context")
    grid.y(1, showgrid=False)


def _draw_lags(grid: Grid, glance: Glance, profile: pd.DataFrame) -> None:
    columns = ["lag", "mass", "uniform"]
    rows = profile.sort_values("lag") if len(profile) else pd.DataFrame(columns=columns)
    rows = rows[rows[columns[1:]].max(axis=1) > 0]  # what nobody may attend to: the future, mostly
    lags = rows["lag"].to_numpy(float)
    grid.add(
        2,
        go.Bar(
            x=lags,
            y=100 * rows["mass"].to_numpy(float),
            width=0.9 * glance.span,
            marker={"color": palette.HEAD_SET["diffuse"]},
            name=plain("this head's attention"),
            legendgroup="mass",
            hovertemplate="%{x:.0f} steps back: %{y:.3g} %<extra></extra>",
        ),
    )
    grid.add(
        2,
        go.Scatter(
            x=lags,
            y=100 * rows["uniform"].to_numpy(float),
            mode="lines",
            line={"color": palette.AFTER, "width": 1.5, "dash": "dot"},
            name="an even head's",
            legendgroup="uniform",
            hovertemplate="%{x:.0f} steps back: %{y:.3g} % of an even head's<extra></extra>",
        ),
    )
    grid.x(2, title_text="time steps back (below 0: ahead)")
    grid.y(2, title_text="% of attention", rangemode="tozero")
