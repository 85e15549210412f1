"""Heads: stable rank, ablation effect, and how many of a layer must stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tsprune.report import palette
from tsprune.report.figures.shared import (
    VARIANTS,
    at_site,
    attention_sites,
    differs,
    in_percent,
    integer_step,
    site_name,
)
from tsprune.report.panels import Grid, View, message, plain, wrapped
from tsprune.report.scale import Scale, scale_for
from tsprune.studies.study_result import ModelStudy, Study


def head_maps(model: ModelStudy, *, columns: int | None = None) -> go.Figure:
    """Stable rank of every head (layer x head) beside the effect of ablating it, a row per site."""
    sites = attention_sites(model.heads)
    if not sites:
        return message("No head was measured.")
    titles = [
        plain(f"{site_name(site)}: {what}")
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
        heads = at_site(model.heads, site)
        for variant, name in VARIANTS.items():
            grid.add(2 * row, _rank_map(heads, variant, name))
        grid.add(2 * row + 1, _effect_map(heads, scale))
        for panel in (2 * row, 2 * row + 1):
            grid.x(
                panel,
                title_text="head",
                title_standoff=18,
                tickformat="d",
                dtick=integer_step(heads["head"].max()),
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
        text=_marks(heads, matrix),
        texttemplate="%{text}",
        textfont={"size": 13},
        xgap=1,
        ygap=1,
        hovertemplate="layer %{y}, head %{x}<br>CRPS %{customdata:+.3g} %<extra></extra>",
    )


def _marks(heads: pd.DataFrame, like: pd.DataFrame) -> np.ndarray:
    """A dot for each head whose change is none of chance after correction for all heads."""
    if "crps_p_holm" not in heads:
        return np.full(like.shape, "")
    sure = differs(heads["crps_p_holm"], heads["crps_low"], heads["crps_high"])
    marked = _matrix(heads.assign(marked=sure.astype(float)), "marked").reindex_like(like)
    return np.where(marked == 1, "•", "")


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


def rank_against_effect(model: ModelStudy, *, columns: int | None = None) -> go.Figure:
    """Stable rank of each head against what ablating it does; correlation in the panel's title."""
    sites = attention_sites(model.heads)
    if not sites:
        return message("No head was measured.")
    titles = {v: [_rank_title(model, site, name) for site in sites] for v, name in VARIANTS.items()}
    grid = Grid(titles["stable_rank"], columns=columns, height=250, legend_rows=0)
    scale = scale_for([in_percent(model.heads["crps_change"])])
    for panel, site in enumerate(sites):
        heads = at_site(model.heads, site)
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
    table = at_site(model.rank_correlation, site)
    is_crps = table["metric"].astype(str).str.lower().str.startswith("crps")
    table = table[(table["variant"] == variant) & is_crps]
    name = plain(site_name(site))
    if table.empty or not np.isfinite(float(table["correlation"].iloc[0])):
        return f"{name}<br> "
    row = table.iloc[0]
    return (
        f"{name}<br><span style='font-size:11px'>Spearman correlation {float(row['correlation']):+.2f} "
        f"{_certainty(row)}</span>"
    )


def _certainty(row: pd.Series[Any]) -> str:
    if "p_holm" not in row:
        return f"(p = {float(row['p_value']):.2g}, {int(row['heads'])} heads)"
    low, high = float(row["low"]), float(row["high"])
    return f"[{low:+.2f}, {high:+.2f}] (p = {float(row['p_holm']):.2g} by Holm, {int(row['heads'])} heads)"


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
        (model, site, at_site(model.heads_at, site))
        for model in study.models
        for site in attention_sites(model.heads_at)
    ]
    if not panels:
        return message("heads@ was not measured.")
    titles = [
        f"{wrapped(model.name, 60)}<br><span style='font-size:11px'>{plain(site_name(site))}</span>"
        for model, site, _ in panels
    ]
    grid = Grid(titles, columns=columns, height=190, legend_rows=3 if columns == 1 else 1)
    for panel, (_, _, rows) in enumerate(panels):
        grid.add(panel, _total_bars(rows))
        for selection, colour in palette.SELECTION.items():
            grid.add(panel, _stay_bars(rows, selection, colour))
        grid.x(panel, title_text="layer", tickformat="d", dtick=integer_step(rows["layer"].max()))
        top = float(rows["heads"].max())
        grid.y(panel, range=[0, top * 1.04], tickformat="d", dtick=integer_step(top))
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
