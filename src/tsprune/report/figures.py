"""The report's pictures: pure functions from a study to a plotly figure.

Every function takes `columns`, the number of panels side by side (None: as fits a wide page).
Figures that differ only in `columns` have identical traces, so that a page can carry one set of
data and two layouts.
All changes are drawn in percent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from tsprune.report import palette
from tsprune.report.panels import Grid, View, message, plain, wrapped
from tsprune.report.scale import Scale, scale_for
from tsprune.study.result import Example, ModelStudy, Study

METRICS = {"crps_change": "CRPS", "mase_change": "MASE"}
VARIANTS = {"stable_rank": "paper", "stable_rank_effective": "effective"}

# how much history is drawn before a forecast: in horizons, and at least so many steps
_HISTORY_HORIZONS, _HISTORY_STEPS = 2, 24

Floats = NDArray[np.float64]


def in_percent(values: pd.Series[Any]) -> Floats:
    """A column of fractions as percent [rows]."""
    return 100 * np.asarray(values, dtype=np.float64)


def _changes(tables: Iterable[pd.DataFrame]) -> list[Floats]:
    return [in_percent(table[metric]) for table in tables for metric in METRICS if metric in table]


def _metric_views() -> list[View]:
    return [View(metric, name) for metric, name in METRICS.items()]


def _sites(table: pd.DataFrame) -> list[tuple[str, str]]:
    """(stack, attention) of every kind of attention sublayer, in order of appearance."""
    found = table[["stack", "attention"]].drop_duplicates()
    return [(str(stack), str(attention)) for stack, attention in found.itertuples(index=False)]


def _at_site(table: pd.DataFrame, site: tuple[str, str]) -> pd.DataFrame:
    return table[(table["stack"] == site[0]) & (table["attention"] == site[1])]


def _site_name(site: tuple[str, str]) -> str:
    return f"{site[0]}, {site[1]}-attention"


def layer_curves(study: Study, *, columns: int | None = None) -> go.Figure:
    """Change of CRPS (or MASE) by ablating heads, MLP or both of each layer; a panel per stack."""
    panels = [
        (model, str(stack), rows)
        for model in study.models
        for stack, rows in model.layers.groupby("stack", sort=False)
    ]
    if not panels:
        return message("No layer was ablated.")
    titles = [plain(f"{model.name}: {stack}") for model, stack, _ in panels]
    grid = Grid(titles, columns=columns, legend_rows=2 if columns == 1 else 1)
    scale = scale_for(_changes(m.layers for m in study.models), threshold=1.0)
    named: set[tuple[str, str]] = set()
    for panel, (_, _, rows) in enumerate(panels):
        for metric in METRICS:
            for unit, colour in palette.UNIT.items():
                part = rows[rows["unit"] == unit].sort_values("layer")
                if part.empty:
                    continue
                grid.add(panel, _layer_line(part, unit, colour, metric, scale, (metric, unit) not in named))
                named.add((metric, unit))
        grid.y_scale(panel, scale)
        grid.x(panel, title_text="layer", tickformat="d", dtick=_integer_step(rows["layer"].max()))
        _mark_percent(grid, panel, scale, study.percent)
        if grid.first_in_row(panel):
            grid.y(panel, title_text="change (%), lower is better")
    grid.legend()
    grid.buttons(_metric_views())
    return grid.figure


def _layer_line(
    rows: pd.DataFrame, unit: str, colour: str, metric: str, scale: Scale, show: bool
) -> go.Scatter:
    change = in_percent(rows[metric])
    return go.Scatter(
        x=rows["layer"].to_numpy(),
        y=scale(change),
        customdata=np.column_stack([change, rows["spearman_distance"].to_numpy(dtype=np.float64)]),
        name=palette.UNIT_LABEL[unit],
        legendgroup=unit,
        showlegend=show,
        mode="lines+markers",
        line={"color": colour, "width": 2},
        marker={"symbol": palette.UNIT_SYMBOL[unit], "size": 8},
        meta={"view": metric},
        hovertemplate=f"layer %{{x}}, {palette.UNIT_LABEL[unit]}<br>{METRICS[metric]} "
        "%{customdata[0]:+.3g} %<br>Spearman distance %{customdata[1]:.3g}<extra></extra>",
    )


def _integer_step(last: float) -> int:
    """Distance between ticks that are layers or heads 0..last."""
    return max(1, int(np.ceil((last + 1) / 12)))


def _mark_percent(grid: Grid, panel: int, scale: Scale, percent: float) -> None:
    grid.line(panel, 0.0)
    label = f"+{percent:g} %"
    grid.line(panel, float(scale(percent)), label, colour=palette.MUTED)


def head_maps(model: ModelStudy, *, columns: int | None = None) -> go.Figure:
    """Stable rank of every head (layer x head) beside the effect of ablating it, a row per site."""
    sites = _sites(model.heads)
    if not sites:
        return message("No head was measured.")
    titles = [
        plain(f"{_site_name(site)}: {what}")
        for site in sites
        for what in ("stable rank", "change of CRPS (%)")
    ]
    layers = model.heads.groupby(["stack", "attention"])["layer"].nunique().max()
    # two columns, or one: rank and effect of a site belong side by side
    grid = Grid(titles, columns=columns or 2, height=int(np.clip(26 * layers, 110, 420)), legend_rows=2)
    change = in_percent(model.heads["crps_change"])
    scale = scale_for([change], orders=0.5)
    ranks = pd.concat([model.heads[variant] for variant in VARIANTS]).astype(float)
    for row, site in enumerate(sites):
        heads = _at_site(model.heads, site)
        for variant, name in VARIANTS.items():
            grid.add(2 * row, _rank_map(heads, variant, name))
        grid.add(2 * row + 1, _effect_map(heads, scale))
        for panel in (2 * row, 2 * row + 1):
            grid.x(
                panel,
                title_text="head",
                title_standoff=18,
                tickformat="d",
                dtick=_integer_step(heads["head"].max()),
            )
            grid.y(panel, title_text="layer", tickformat="d", dtick=1, showgrid=False, autorange="reversed")
    _colour_axes(grid, ranks, scale)
    grid.buttons([View(variant, f"stable rank: {name}") for variant, name in VARIANTS.items()])
    return grid.figure


def _matrix(heads: pd.DataFrame, column: str) -> pd.DataFrame:
    """Layers x heads of one column; NaN where a layer has no such head."""
    return heads.assign(**{column: heads[column].astype(float)}).pivot_table(
        index="layer", columns="head", values=column, aggfunc="first", dropna=False
    )


def _rank_map(heads: pd.DataFrame, variant: str, name: str) -> go.Heatmap:
    matrix = _matrix(heads, variant)
    return go.Heatmap(
        x=matrix.columns.to_numpy(),
        y=matrix.index.to_numpy(),
        z=matrix.to_numpy(),
        coloraxis="coloraxis",
        xgap=1,
        ygap=1,
        meta={"view": variant},
        hovertemplate=f"layer %{{y}}, head %{{x}}<br>stable rank ({name}) %{{z:.2f}}<extra></extra>",
    )


def _effect_map(heads: pd.DataFrame, scale: Scale) -> go.Heatmap:
    matrix = 100 * _matrix(heads, "crps_change")
    return go.Heatmap(
        x=matrix.columns.to_numpy(),
        y=matrix.index.to_numpy(),
        z=scale(matrix.to_numpy()),
        customdata=matrix.to_numpy(),
        coloraxis="coloraxis2",
        xgap=1,
        ygap=1,
        hovertemplate="layer %{y}, head %{x}<br>CRPS %{customdata:+.3g} %<extra></extra>",
    )


def _colour_axes(grid: Grid, ranks: pd.Series[float], scale: Scale) -> None:
    """Two colour bars above the panels: left stable rank, right change."""
    finite = ranks[np.isfinite(ranks)]
    positions, labels = scale.ticks(dense=False)
    reach = max(abs(position) for position in scale.range(0.0)) or 1.0
    ticks = {"tickmode": "array", "tickvals": positions, "ticktext": labels} if labels else {}
    grid.figure.update_layout(
        coloraxis={
            "colorscale": palette.RANK_SCALE,
            "cmin": float(finite.min()) if len(finite) else 1.0,
            "cmax": float(finite.max()) if len(finite) else 2.0,
            "colorbar": grid.colour_bar("stable rank", 0.0),
        },
        coloraxis2={
            "colorscale": [list(step) for step in palette.CHANGE_SCALE],
            "cmin": -reach,
            "cmax": reach,
            "colorbar": grid.colour_bar("change of CRPS (%)", 0.55) | ticks,
        },
    )


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
        _mark_percent(grid, panel, scale, study.percent)
        if grid.first_in_row(panel):
            grid.y(panel, title_text="change (%), lower is better")
    grid.legend()
    grid.buttons(_metric_views())
    return grid.figure


def pruning_scale(models: Sequence[ModelStudy]) -> Scale:
    """The scale that holds every pruned model and the random draws' mean -+ one sd."""
    spreads = [
        pruning_spread(model.pruning, metric)[["minus", "plus"]] for model in models for metric in METRICS
    ]
    return scale_for([*_changes(model.pruning for model in models), *spreads], threshold=1.0)


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


def quantile(forecast: NDArray[np.float32], levels: Sequence[float], level: float) -> Floats:
    """The forecast [H] at `level`, between the nearest of `levels` of `forecast` [Q, H]."""
    order = np.argsort(levels)
    known = np.asarray(levels, dtype=np.float64)[order]
    values = np.asarray(forecast, dtype=np.float64)[order]
    return np.array([np.interp(level, known, values[:, step]) for step in range(values.shape[1])])


def forecasts(model: ModelStudy, *, columns: int | None = None) -> go.Figure:
    """Real windows: history, what followed, and the forecast before and after an ablation."""
    if not model.examples:
        return message("No forecast was kept as an example.")
    narrow = columns == 1
    width = 46 if narrow else 62
    titles = [
        f"<b>{wrapped(example.configuration, width)}</b><br>"
        f"<span style='font-size:11px'>after: {wrapped(example.ablation, width)}</span>"
        for example in model.examples
    ]
    grid = Grid(titles, columns=columns, height=220, legend_rows=3 if narrow else 1)
    for panel, example in enumerate(model.examples):
        for trace in _forecast_traces(example):
            trace.update(showlegend=panel == 0)
            grid.add(panel, trace)
        grid.x(panel, title_text="steps from the start of the forecast")
        if grid.first_in_row(panel):
            grid.y(panel, title_text="value (the series' own unit)")
    grid.legend()
    return grid.figure


def history_of(example: Example) -> Floats:
    """The end of the context that is drawn before the forecast [steps]."""
    steps = max(_HISTORY_HORIZONS * len(example.target), _HISTORY_STEPS)
    return np.asarray(example.context, dtype=np.float64)[-steps:]


def _forecast_traces(example: Example) -> list[go.Scatter]:
    """Bands at the bottom, then the truth, then the medians."""
    history = history_of(example)
    ahead = np.arange(len(example.target))
    bands, medians = [], []
    for name, values, colour in (
        ("before", example.before, palette.BEFORE),
        ("after", example.after, palette.AFTER),
    ):
        low, middle, high = (quantile(values, example.levels, level) for level in (0.1, 0.5, 0.9))
        band = go.Scatter(
            x=np.concatenate([ahead, ahead[::-1]]),
            y=np.concatenate([high, low[::-1]]),
            mode="lines",
            line={"width": 0},
            fill="toself",
            fillcolor=palette.translucent(colour, 0.2),
            name=f"{name}: 10-90 %",
            legendgroup=f"{name} band",
            hoverinfo="skip",
        )
        bands.append(band)
        medians.append(_step_line(ahead, middle, f"{name}: median", colour, width=2))
    truth = [
        _step_line(np.arange(-len(history), 0), history, "history", palette.MUTED, width=1.3),
        _step_line(ahead, example.target, "what followed", palette.INK, width=1.5, ink="ink"),
    ]
    return [*bands, *truth, *medians]


def _step_line(
    x: NDArray[Any], y: NDArray[Any], name: str, colour: str, *, width: float, ink: str = ""
) -> go.Scatter:
    return go.Scatter(
        x=x,
        y=np.asarray(y, dtype=np.float64),
        mode="lines",
        line={"color": colour, "width": width},
        name=name,
        legendgroup=name,
        meta={"ink": ink},
        hovertemplate=f"{name}<br>step %{{x}}: %{{y:.4g}}<extra></extra>",
    )


def rank_against_effect(model: ModelStudy, *, columns: int | None = None) -> go.Figure:
    """Stable rank of each head against what ablating it does; correlation in the panel's title."""
    sites = _sites(model.heads)
    if not sites:
        return message("No head was measured.")
    titles = {v: [_rank_title(model, site, name) for site in sites] for v, name in VARIANTS.items()}
    grid = Grid(titles["stable_rank"], columns=columns, height=250, legend_rows=0)
    scale = scale_for([in_percent(model.heads["crps_change"])])
    for panel, site in enumerate(sites):
        heads = _at_site(model.heads, site)
        for variant, name in VARIANTS.items():
            grid.add(panel, _head_points(heads, site, variant, name, scale))
        grid.y_scale(panel, scale)
        grid.line(panel, 0.0)
        grid.x(panel, title_text="stable rank of the head")
        if grid.first_in_row(panel):
            grid.y(panel, title_text="change of CRPS (%)")
    relabel: dict[str, dict[str, object]] = {
        v: {f"annotations[{i}].text": title for i, title in enumerate(texts)} for v, texts in titles.items()
    }
    grid.buttons(
        [View(variant, f"stable rank: {name}", relabel[variant]) for variant, name in VARIANTS.items()]
    )
    return grid.figure


def _rank_title(model: ModelStudy, site: tuple[str, str], variant: str) -> str:
    """Site and Spearman correlation with the change of CRPS, where the study has it."""
    table = _at_site(model.rank_correlation, site)
    is_crps = table["metric"].astype(str).str.lower().str.startswith("crps")
    table = table[(table["variant"] == variant) & is_crps]
    name = plain(_site_name(site))
    if table.empty or not np.isfinite(float(table["correlation"].iloc[0])):
        return f"{name}<br> "
    row = table.iloc[0]
    return (
        f"{name}<br><span style='font-size:11px'>Spearman correlation {float(row['correlation']):+.2f} "
        f"(p = {float(row['p_value']):.2g}, {int(row['heads'])} heads)</span>"
    )


def _head_points(
    heads: pd.DataFrame, site: tuple[str, str], variant: str, name: str, scale: Scale
) -> go.Scatter:
    change = in_percent(heads["crps_change"])
    kind = site[1]
    return go.Scatter(
        x=heads[variant].to_numpy(dtype=np.float64),
        y=scale(change),
        customdata=change,
        text=[plain(str(address)) for address in heads["address"]],
        mode="markers",
        marker={
            "size": 8,
            "opacity": 0.85,
            "color": palette.ATTENTION.get(kind, palette.MUTED),
            "symbol": palette.ATTENTION_SYMBOL.get(kind, "circle"),
        },
        meta={"view": variant},
        hovertemplate=f"%{{text}}<br>stable rank ({name}) %{{x:.2f}}<br>"
        "CRPS %{customdata:+.3g} %<extra></extra>",
    )


def heads_at(study: Study, *, columns: int | None = None) -> go.Figure:
    """Heads of each attention sublayer that must stay, chosen on calibration or on test windows."""
    panels = [
        (model, site, _at_site(model.heads_at, site))
        for model in study.models
        for site in _sites(model.heads_at)
    ]
    if not panels:
        return message("heads@ was not measured.")
    titles = [
        f"{wrapped(model.name, 60)}<br><span style='font-size:11px'>{plain(_site_name(site))}</span>"
        for model, site, _ in panels
    ]
    grid = Grid(titles, columns=columns, height=190, legend_rows=3 if columns == 1 else 1)
    for panel, (_, _, rows) in enumerate(panels):
        grid.add(panel, _total_bars(rows))
        for selection, colour in palette.SELECTION.items():
            grid.add(panel, _stay_bars(rows, selection, colour))
        grid.x(panel, title_text="layer", tickformat="d", dtick=_integer_step(rows["layer"].max()))
        top = float(rows["heads"].max())
        grid.y(panel, range=[0, top * 1.04], tickformat="d", dtick=_integer_step(top))
        if grid.first_in_row(panel):
            grid.y(panel, title_text="heads")
    for trace in grid.figure.data:
        trace.showlegend = trace.showlegend and trace.xaxis in (None, "x")
    grid.figure.update_layout(barmode="group", bargap=0.25)
    grid.legend()
    return grid.figure


def _total_bars(rows: pd.DataFrame) -> go.Bar:
    """The heads there are, as an outline behind the two selections' bars."""
    once = rows.drop_duplicates("layer")
    return go.Bar(
        x=once["layer"].to_numpy(),
        y=once["heads"].to_numpy(),
        name="heads there are",
        width=0.8,
        offset=-0.4,
        marker={"color": "rgba(0,0,0,0)", "line": {"color": palette.MUTED, "width": 1}},
        showlegend=True,
        hoverinfo="skip",
    )


def _stay_bars(rows: pd.DataFrame, selection: str, colour: str) -> go.Bar:
    part = rows[rows["selection"] == selection]
    return go.Bar(
        x=part["layer"].to_numpy(),
        y=part["heads_at"].to_numpy(),
        customdata=np.column_stack(
            [part["heads"].to_numpy(), part["order"].astype(str).to_numpy(), in_percent(part["score_change"])]
        )
        if len(part)
        else None,
        name=f"must stay, {palette.SELECTION_LABEL[selection]}",
        width=0.36,
        offset=-0.38 if selection == "calibration" else 0.02,
        marker={"color": colour},
        showlegend=True,
        hovertemplate="layer %{x}: %{y} of %{customdata[0]} heads must stay<br>removed %{customdata[1]}<br>"
        "score %{customdata[2]:+.3g} %<extra></extra>",
    )
