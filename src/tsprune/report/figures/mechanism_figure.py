"""Sharp and diffuse heads: what forecasts lose without the one, the other, or as many random ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tsprune.explain.overview import Explanation
from tsprune.report import palette
from tsprune.report.figures.shared import Floats, band, whiskers
from tsprune.report.panels import Grid, message, plain, wrapped
from tsprune.report.scale import Scale, scale_for

EFFECTS = {"mase": "error (MASE)", "parroting": "parroting", "seasonality": "seasonality"}


def mechanism_curves(explained: Sequence[Explanation], *, columns: int | None = None) -> go.Figure:
    """Change of error, parroting and seasonality against the share of heads ablated; a row a model."""
    explained = [one for one in explained if len(one.effects)]
    if not explained:
        return message("No heads were ablated in sets.")
    panels = [(one, effect) for one in explained for effect in EFFECTS]
    grid = Grid(
        [_title(one, effect) for one, effect in panels],
        columns=columns or 3,
        height=230,
        legend_rows=3 if columns == 1 else 2,
    )
    for panel, (one, effect) in enumerate(panels):
        rows = one.effects[one.effects["effect"] == effect]
        scale = scale_for([rows[name] for name in ("mean", "low", "high", "draw_low", "draw_high")])
        for trace in _traces(rows, scale):
            trace.update(showlegend=panel == 0)
            grid.add(panel, trace)
        grid.y_scale(panel, scale)
        grid.line(panel, 0.0)
        grid.x(panel, title_text="heads ablated (% of each sublayer)", rangemode="tozero", dtick=10)
        if grid.first_in_row(panel):
            grid.y(panel, title_text="change")
    grid.legend()
    return grid.figure


def _title(one: Explanation, effect: str) -> str:
    """Model, effect and how far the unablated forecast exceeds the true future."""
    small = "change of the window's scaled error; lower is better"
    known = one.clean[one.clean["trait"] == effect] if len(one.clean) else one.clean
    if len(known):
        row = known.iloc[0]
        interval = f"[{row['low']:+.3f}, {row['high']:+.3f}]"
        small = f"unablated, minus the true future's: {row['excess']:+.3f} {interval}"
    return (
        f"{wrapped(one.model, 44)}<br><b>{plain(EFFECTS[effect])}</b>"
        f"<br><span style='font-size:10px'>{plain(small)}</span>"
    )


def _traces(rows: pd.DataFrame, scale: Scale) -> list[go.Scatter]:
    """The band of the random draws below, then a line a set, each from 0 % on."""
    traces = []
    chance = rows[rows["which"] == "random"].sort_values("percent")
    if len(chance):
        x, low, high = (_from_zero(chance[name]) for name in ("percent", "draw_low", "draw_high"))
        colour = palette.translucent(palette.HEAD_SET["random"], 0.28)
        traces.append(band(x, low, high, scale, colour, "random draws, lowest to highest"))
    for which, colour in palette.HEAD_SET.items():
        part = rows[rows["which"] == which].sort_values("percent")
        if len(part):
            traces.append(_line(part, which, colour, scale))
    return traces


def _line(part: pd.DataFrame, which: str, colour: str, scale: Scale) -> go.Scatter:
    mean, low, high = (_from_zero(part[name]) for name in ("mean", "low", "high"))
    return go.Scatter(
        x=_from_zero(part["percent"]),
        y=scale(mean),
        error_y=None if which == "random" else whiskers(mean, low, high, scale, colour),
        customdata=np.column_stack([mean, low, high]),
        name=palette.HEAD_SET_LABEL[which],
        legendgroup=which,
        mode="lines+markers",
        line={"color": colour, "width": 2, "dash": "dash" if which == "random" else "solid"},
        marker={"symbol": palette.HEAD_SET_SYMBOL[which], "size": 7},
        hovertemplate=f"{palette.HEAD_SET_LABEL[which]}<br>%{{x:g}} % ablated<br>change "
        "%{customdata[0]:+.3g} [%{customdata[1]:+.3g}, %{customdata[2]:+.3g}]<extra></extra>",
    )


def _from_zero(values: pd.Series[float]) -> Floats:
    return np.concatenate([[0.0], values.to_numpy(dtype=np.float64)])
