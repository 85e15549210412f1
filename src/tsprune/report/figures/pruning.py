"""The cost of pruning: against the share of the middle layers' heads, and against the time of a forecast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tsprune.report import palette
from tsprune.report.digest import change_column, pruning_curve, shown_metrics
from tsprune.report.figures import shared
from tsprune.report.panels import Grid, Scale, message, plain, scale_for
from tsprune.studies.study_result import ModelStudy, Study

# distance between the strategies' points, in percent removed; at one place error bars would hide each other
_STEP = 0.7
# edges, opacity and name of the bands of random draws
_BANDS = (("low", "high", 0.18, "random: lowest to highest"), ("minus", "plus", 0.30, "random: mean ± 1 sd"))


def pruning_curves(
    study: Study,
    *,
    columns: int | None = None,
    strategies: Sequence[str] = ("high-to-low", "low-to-high", "random"),
) -> go.Figure:
    """Change of CRPS (or MASE) against the share of heads removed, by strategy, above the random draws."""
    models = [model for model in study.models if not model.pruning.empty]
    if not models:
        return message("No model was pruned: none has middle layers.")
    titles = [plain(model.name) for model in models]
    grid = Grid(titles, columns=columns, height=300, legend_rows=3 if columns == 1 else 2)
    scale = pruning_scale(models)
    for panel, model in enumerate(models):
        for metric in shown_metrics():
            for trace in _pruning_traces(model, metric, scale, strategies):
                grid.add(panel, trace, metric)
        title = "middle-layer heads removed (%)"
        grid.x(panel, title_text=title, rangemode="tozero", dtick=10)
        shared.change_axis(grid, panel, scale, study.percent)
    grid.legend()
    return grid.buttons(shared.metric_views())


def pruning_scale(models: Sequence[ModelStudy]) -> Scale:
    """The scale that holds every pruned model and the random draws' mean -+ one standard deviation."""
    spreads = [pruning_spread(model.pruning, metric) for model in models for metric in shown_metrics()]
    values = [spread[["minus", "plus"]] for spread in spreads]
    return scale_for([*shared.changes_of(model.pruning for model in models), *values], threshold=1.0)


def _pruning_traces(
    model: ModelStudy, metric: str, scale: Scale, strategies: Sequence[str]
) -> list[go.Scatter]:
    """Bands of the random draws at the back, then one line per strategy, each from 0 % removed."""
    traces: list[go.Scatter] = []
    spread = pruning_spread(model.pruning, metric)
    if len(spread) > 1 and spread["draws"].max() > 1:
        for low, high, alpha, name in _BANDS:
            colour = palette.translucent(palette.STRATEGY["random"].colour, alpha)
            edges = spread[low].to_numpy(), spread[high].to_numpy()
            traces.append(shared.band(spread.index.to_numpy(dtype=np.float64), *edges, colour, name, scale))
    for place, strategy in enumerate(strategies):
        curve = pruning_curve(model, strategy, metric)
        if curve.empty:
            continue
        removed, found = curve["percent"].to_numpy(), shared.estimates(curve, "change", factor=100)
        style = palette.STRATEGY[strategy]
        aside = shared.from_zero(removed + (place - (len(strategies) - 1) / 2) * _STEP)
        hover = f"{style.label}<br>%{{customdata[3]:g}} % removed<br>{metric} {shared.CHANGE}"
        dash = "dash" if strategy == "random" else "solid"
        extra = (shared.from_zero(removed),)
        traces.append(
            shared.estimate_trace(aside, shared.from_zero(found), style, hover, scale, extra=extra, dash=dash)
        )
    return traces


def pruning_spread(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Random draws in percent: low, high, minus, plus (mean -+ one standard deviation), draws.

    Indexed by percent removed, from the unpruned model's 0.
    """
    rows = table[table["strategy"] == "random"]
    changes = pd.Series(shared.in_percent(rows[change_column(metric)]), index=rows["percent"].astype(float))
    values = changes.groupby(level=0)
    mean, sd = values.mean(), values.std().fillna(0.0)
    edges = {"low": values.min(), "high": values.max(), "minus": mean - sd, "plus": mean + sd}
    spread = pd.DataFrame(edges | {"draws": values.count()})
    start = pd.DataFrame(0.0, index=[0.0], columns=spread.columns)
    return pd.concat([start, spread.dropna()])


def accuracy_against_time(
    table: pd.DataFrame, *, percent: float = 1.0, columns: int | None = None
) -> go.Figure:
    """Change of MASE (or CRPS) against the time of a forecast, one line per way of removing components.

    table : as `tsprune.pruning.tradeoff` returns it
    percent : the loss to mark
    """
    if table.empty:
        return message("Nothing was removed.")
    grid = Grid([""], columns=1, height=420, legend_rows=2 if columns == 1 else 1)
    scale = scale_for(shared.changes_of([table]), threshold=1.0)
    for metric in reversed(shown_metrics()):  # MASE first: plans are searched by it
        for way, rows in table.groupby("way", sort=False):
            style = palette.WAY[str(way)]
            # from the original (100 % of the time, no change) on
            change = shared.from_zero(shared.metric_change(rows, metric))
            time = shared.from_zero(shared.estimates(rows, "time_ratio", factor=100), 100.0)
            hover = (
                f"{style.label}: %{{x:.3g}} % of the time<br>{metric} {shared.CHANGE}<br>removed: %{{text}}"
            )
            look: dict[str, Any] = {"error_x": shared.error_bars(time, style.colour)}
            look["text"] = ["nothing", *map(_some, rows["what"])]
            grid.add(0, shared.estimate_trace(time[0], change, style, hover, scale, **look), metric)
    grid.x(0, title_text="time of a forecast (% of the original's)")
    shared.change_axis(grid, 0, scale, percent)
    grid.legend()
    return grid.buttons(shared.metric_views()[::-1])


def _some(addresses: str, most: int = 6) -> str:
    names = addresses.split()
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return plain(", ".join(names[:most]) + more)
