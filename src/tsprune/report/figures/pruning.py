"""What pruning a share of the middle layers' heads costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tsprune.report import palette
from tsprune.report.figures.shared import (
    METRICS,
    changes,
    in_percent,
    mark_percent,
    metric_views,
)
from tsprune.report.panels import Grid, message, plain
from tsprune.report.scale import Scale, scale_for
from tsprune.study.result import ModelStudy, Study


def pruning_curves(study: Study, *, columns: int | None = None) -> go.Figure:
    """Change of CRPS (or MASE) against the share of heads removed, by order of removal."""
    models = [model for model in study.models if not model.pruning.empty]
    if not models:
        return message("No model was pruned: none has middle layers.")
    grid = Grid(
        [plain(model.name) for model in models],
        columns=columns,
        height=300,
        legend_rows=3 if columns == 1 else 2,
    )
    scale = pruning_scale(models)
    for panel, model in enumerate(models):
        for metric in METRICS:
            for trace in _pruning_traces(model.pruning, metric, scale):
                trace.update(meta={"view": metric}, showlegend=panel == 0)
                grid.add(panel, trace)
        grid.y_scale(panel, scale)
        grid.x(
            panel, title_text="heads removed (% of the middle layers' heads)", rangemode="tozero", dtick=10
        )
        mark_percent(grid, panel, scale, study.percent)
        if grid.first_in_row(panel):
            grid.y(panel, title_text="change (%), lower is better")
    grid.legend()
    grid.buttons(metric_views())
    return grid.figure


def pruning_scale(models: Sequence[ModelStudy]) -> Scale:
    """The scale that holds every pruned model and the random draws' mean -+ one sd."""
    spreads = [
        pruning_spread(model.pruning, metric)[["minus", "plus"]] for model in models for metric in METRICS
    ]
    return scale_for([*changes(model.pruning for model in models), *spreads], threshold=1.0)


def _pruning_traces(table: pd.DataFrame, metric: str, scale: Scale) -> list[go.Scatter]:
    """Bands of the random draws below, then one line a strategy, each starting at 0 % removed."""
    traces: list[go.Scatter] = []
    chance = pruning_spread(table, metric)
    grey = palette.STRATEGY["random"]
    if len(chance) > 1 and chance["draws"].max() > 1:
        traces += [
            _band(chance, "low", "high", scale, palette.translucent(grey, 0.18), "random: lowest to highest"),
            _band(chance, "minus", "plus", scale, palette.translucent(grey, 0.30), "random: mean ± 1 sd"),
        ]
    for strategy, colour in palette.STRATEGY.items():
        curve = _curve(table, strategy, metric)
        if len(curve) < 2:
            continue
        traces.append(
            go.Scatter(
                x=curve.index.to_numpy(dtype=np.float64),
                y=scale(curve.to_numpy()),
                customdata=curve.to_numpy(),
                name=palette.STRATEGY_LABEL[strategy],
                legendgroup=strategy,
                mode="lines+markers",
                line={"color": colour, "width": 2, "dash": "dash" if strategy == "random" else "solid"},
                marker={"symbol": palette.STRATEGY_SYMBOL[strategy], "size": 8},
                hovertemplate=f"{palette.STRATEGY_LABEL[strategy]}<br>%{{x:g}} % removed<br>"
                f"{METRICS[metric]} %{{customdata:+.3g}} %<extra></extra>",
            )
        )
    return traces


def _curve(table: pd.DataFrame, strategy: str, metric: str) -> pd.Series[float]:
    """Mean change in percent by percent removed, with the unpruned model's 0 in front."""
    rows = table[table["strategy"] == strategy]
    means = pd.Series(in_percent(rows[metric]), index=rows["percent"].astype(float)).groupby(level=0).mean()
    return pd.concat([pd.Series({0.0: 0.0}), means[means.index > 0]])


def pruning_spread(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Of the random draws, in percent: low, high, minus, plus (mean -+ sd), draws; index percent."""
    rows = table[table["strategy"] == "random"]
    values = pd.Series(in_percent(rows[metric]), index=rows["percent"].astype(float)).groupby(level=0)
    mean, sd = values.mean(), values.std().fillna(0.0)
    spread = pd.DataFrame(
        {
            "low": values.min(),
            "high": values.max(),
            "minus": mean - sd,
            "plus": mean + sd,
            "draws": values.count(),
        }
    )
    start = pd.DataFrame(0.0, index=[0.0], columns=spread.columns)
    return pd.concat([start, spread[spread.index > 0].dropna()])


def _band(spread: pd.DataFrame, low: str, high: str, scale: Scale, colour: str, name: str) -> go.Scatter:
    x = spread.index.to_numpy(dtype=np.float64)
    return go.Scatter(
        x=np.concatenate([x, x[::-1]]),
        y=scale(np.concatenate([spread[high].to_numpy(), spread[low].to_numpy()[::-1]])),
        mode="lines",
        line={"width": 0},
        fill="toself",
        fillcolor=colour,
        name=name,
        legendgroup=name,
        hoverinfo="skip",
    )
