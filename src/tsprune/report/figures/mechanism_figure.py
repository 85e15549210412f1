"""The effect of ablating sharp, diffuse or as many random heads on forecasts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from tsprune.explain.overview import Explanation
from tsprune.report import palette
from tsprune.report.figures.shared import ESTIMATE, band, estimate_trace, estimates, from_zero
from tsprune.report.panels import Grid, message, plain, small, wrapped
from tsprune.report.scale import Scale, scale_for

_EFFECTS = {"mase": "error (MASE)", "parroting": "parroting", "seasonality": "seasonality"}


def mechanism_curves(explained: Sequence[Explanation], *, columns: int | None = None) -> go.Figure:
    """Change of error, parroting and seasonality against the share of heads ablated; one row per model."""
    panels = [(one, effect) for one in explained if len(one.effects) for effect in _EFFECTS]
    if not panels:
        return message("No sets of heads were ablated.")
    titles = [_title(one, effect) for one, effect in panels]
    grid = Grid(titles, columns=columns or 3, height=230, legend_rows=3 if columns == 1 else 2)
    for panel, (one, effect) in enumerate(panels):
        rows = one.effects[one.effects["effect"] == effect].sort_values("percent")
        scale = scale_for([rows[name] for name in ("mean", "low", "high", "draw_low", "draw_high")])
        for trace in _traces(rows, scale):
            grid.add(panel, trace)
        grid.y_scale(panel, scale)
        grid.line(panel, 0.0)
        grid.x(panel, title_text="heads ablated (% of each sublayer)", rangemode="tozero", dtick=10)
        grid.row_title(panel, "change")
    return grid.legend()


def _title(one: Explanation, effect: str) -> str:
    """Model, effect, and the excess of the unablated forecast over the true future."""
    note = "change of the window's scaled error; lower is better"
    known = one.clean[one.clean["trait"] == effect] if len(one.clean) else one.clean
    if len(known):
        row = known.iloc[0]
        interval = f"[{row['low']:+.3f}, {row['high']:+.3f}]"
        note = f"unablated, minus the true future's: {row['excess']:+.3f} {interval}"
    return f"{wrapped(one.model, 44)}<br><b>{plain(_EFFECTS[effect])}</b><br>{small(plain(note), 10)}"


def _traces(rows: pd.DataFrame, scale: Scale) -> list[go.Scatter]:
    """The band of the random draws at the back, then one line per set, each from 0 % on."""
    traces = []
    chance = rows[rows["which"] == "random"]
    if len(chance):
        x, low, high = (from_zero(chance[name]) for name in ("percent", "draw_low", "draw_high"))
        colour = palette.translucent(palette.HEAD_SET["random"].colour, 0.28)
        traces.append(band(x, low, high, colour, "random draws, lowest to highest", scale))
    for which, style in palette.HEAD_SET.items():
        part = rows[rows["which"] == which]
        if len(part):
            found = from_zero(estimates(part, "mean"))
            hover = f"{style.label}<br>%{{x:g}} % ablated<br>change {ESTIMATE}"
            look: dict[str, Any] = {"bars": None, "dash": "dash"} if which == "random" else {}
            traces.append(estimate_trace(from_zero(part["percent"]), found, style, hover, scale, **look))
    return traces
