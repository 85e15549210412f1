"""What pruning a share of the middle layers' heads costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tsprune.report import palette
from tsprune.report.figures.shared import (
    METRICS,
    band,
    changes,
    in_percent,
    interval_in_words,
    limits,
    mark_percent,
    metric_views,
    whiskers,
)
from tsprune.report.panels import Grid, message, plain
from tsprune.report.scale import Scale, scale_for
from tsprune.studies.study_result import ModelStudy, Study

# how far apart the strategies' points stand, in percent removed, or error bars would hide each other
_STEP = 0.7
# colour and name of the random draws' bands
_WIDE = palette.translucent(palette.STRATEGY["random"], 0.18), "random: lowest to highest"
_NARROW = palette.translucent(palette.STRATEGY["random"], 0.30), "random: mean ± 1 sd"


def pruning_curves(
    study: Study,
    *,
    columns: int | None = None,
    strategies: Sequence[str] = ("high-to-low", "low-to-high", "random"),
) -> go.Figure:
    """Change of CRPS (or MASE) against the share of heads removed, by strategy, above the random null."""
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
    named: set[tuple[str, str]] = set()
    for panel, model in enumerate(models):
        for metric in METRICS:
            for trace in _pruning_traces(model, metric, scale, strategies):
                seen = (metric, trace.name) in named
                trace.update(meta={"view": metric}, showlegend=not seen)
                named.add((metric, trace.name))
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


def _pruning_traces(
    model: ModelStudy, metric: str, scale: Scale, strategies: Sequence[str]
) -> list[go.Scatter]:
    """Bands of the random draws below, then one line a strategy, each starting at 0 % removed."""
    traces: list[go.Scatter] = []
    table = model.pruning
    chance = pruning_spread(table, metric)
    if len(chance) > 1 and chance["draws"].max() > 1:
        x = chance.index.to_numpy(dtype=np.float64)
        traces += [
            band(x, chance["low"].to_numpy(), chance["high"].to_numpy(), scale, *_WIDE),
            band(x, chance["minus"].to_numpy(), chance["plus"].to_numpy(), scale, *_NARROW),
        ]
    for place, strategy in enumerate(strategies):
        colour = palette.STRATEGY[strategy]
        curve = pruning_curve(model, strategy, metric)
        if len(curve) < 2:
            continue
        removed = curve.index.to_numpy(dtype=np.float64)
        aside = np.where(removed > 0, (place - (len(strategies) - 1) / 2) * _STEP, 0)
        change, low, high = (curve[name].to_numpy() for name in ("change", "low", "high"))
        traces.append(
            go.Scatter(
                x=removed + aside,
                y=scale(change),
                error_y=whiskers(change, low, high, scale, colour),
                customdata=np.column_stack([change, low, high, removed]),
                name=palette.STRATEGY_LABEL[strategy],
                legendgroup=strategy,
                mode="lines+markers",
                line={"color": colour, "width": 2, "dash": "dash" if strategy == "random" else "solid"},
                marker={"symbol": palette.STRATEGY_SYMBOL[strategy], "size": 8},
                hovertemplate=f"{palette.STRATEGY_LABEL[strategy]}<br>%{{customdata[3]:g}} % removed<br>"
                f"{METRICS[metric]} %{{customdata[0]:+.3g}} %{interval_in_words(1)}<extra></extra>",
            )
        )
    return traces


def pruning_curve(model: ModelStudy, strategy: str, metric: str) -> pd.DataFrame:
    """Of one strategy, in percent: change, low, high; index percent removed, with the unpruned's 0 in front.

    Of random draws: their geometric mean, with the interval about all draws there could have been.
    """
    start = pd.DataFrame(0.0, index=[0.0], columns=["change", "low", "high"])
    rows = model.pruning[model.pruning["strategy"] == strategy]
    low, high = limits(rows, metric)
    table = pd.DataFrame(
        {"change": in_percent(rows[metric]), "low": low, "high": high}, index=rows["percent"].astype(float)
    )
    if strategy == "random":
        table = _of_the_mean(model, metric)
    return pd.concat([start, table[table.index > 0].sort_index()])


def _of_the_mean(model: ModelStudy, metric: str) -> pd.DataFrame:
    """change (the random draws' geometric mean), low and high, in percent; index percent removed."""
    rows = model.comparisons
    if rows.empty:
        return pd.DataFrame(columns=["change", "low", "high"], dtype=float)
    rows = rows[(rows["versus"] == "unpruned") & (rows["metric"] == METRICS[metric])]
    names = {"change": "difference", "low": "low", "high": "high"}
    columns = {name: in_percent(rows[column]) for name, column in names.items()}
    return pd.DataFrame(columns, index=rows["percent"].astype(float))


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
