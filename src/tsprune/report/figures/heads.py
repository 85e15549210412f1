"""Heads: stable rank, ablation effect, how many of each layer must stay; agreement of scores and effects."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tsprune.report import palette
from tsprune.report.digest import HEADLINE, HEADLINE_CHANGE, change_column, shown_metrics
from tsprune.report.figures import shared
from tsprune.report.figures.layers import short
from tsprune.report.panels import (
    Grid,
    View,
    integer_step,
    message,
    plain,
    scale_for,
    small,
    ticks_of,
    wrapped,
)
from tsprune.studies.study_result import ModelStudy, Study

_CHANGE = f"change of {HEADLINE} (%)"


def head_maps(model: ModelStudy, *, columns: int | None = None) -> go.Figure:
    """Stable rank of every head (layer x head) beside the effect of ablating it; one row per site."""
    sites = shared.by_site(model.heads)
    if not sites:
        return message("No head was measured.")
    drawn = ("stable rank", _CHANGE)
    titles = [plain(f"{shared.site_name(site)}: {one}") for (site, _), one in itertools.product(sites, drawn)]
    grid = Grid(titles, columns=columns or 2, height=shared.map_height(model.heads), legend_rows=2)
    scale = scale_for([shared.in_percent(model.heads[HEADLINE_CHANGE])], orders=0.5)
    for row, (_, heads) in enumerate(sites):
        for variant, name in shared.VARIANTS.items():
            matrix = shared.layers_by_heads(heads, variant)
            shared.head_map(grid, 2 * row, matrix, f"stable rank ({name}) %{{z:.2f}}", view=variant)
        matrix = 100 * shared.layers_by_heads(heads, HEADLINE_CHANGE)
        look: dict[str, Any] = {"axis": "coloraxis2", "customdata": matrix.to_numpy()}
        look |= {"text": _marks(heads, matrix), "texttemplate": "%{text}", "textfont": {"size": 13}}
        hover = f"{HEADLINE} %{{customdata:+.3g}} %"
        shared.head_map(grid, 2 * row + 1, matrix, hover, z=scale(matrix.to_numpy()), **look)
    # two colour bars above the panels: stable rank on the left, change on the right
    ranks = model.heads[list(shared.VARIANTS)].to_numpy(dtype=np.float64)
    known = ranks[np.isfinite(ranks)] if np.isfinite(ranks).any() else np.array([1.0, 2.0])
    grid.colours(palette.RANK_SCALE, float(known.min()), float(known.max()), "stable rank")
    reach = max(abs(position) for position in scale.range(0.0)) or 1.0
    ticks = ticks_of(scale, dense=False)
    grid.colours(palette.CHANGE_SCALE, -reach, reach, _CHANGE, second=True, **ticks)
    return grid.buttons(shared.variant_views())


def _marks(heads: pd.DataFrame, like: pd.DataFrame) -> np.ndarray:
    """A dot for each head whose change differs from 0 after correction for all heads."""
    p_holm = HEADLINE_CHANGE.replace("change", "p_holm")
    if p_holm not in heads:
        return np.full(like.shape, "")
    sure = shared.differs(heads[p_holm], *shared.estimates(heads, HEADLINE_CHANGE)[1:])
    marked = shared.layers_by_heads(heads.assign(marked=sure.astype(float)), "marked").reindex_like(like)
    return np.where(marked == 1, "•", "")


def rank_against_effect(model: ModelStudy, *, columns: int | None = None) -> go.Figure:
    """Stable rank of each head against the effect of ablating it; the correlation in the panel's title."""
    sites = shared.by_site(model.heads)
    if not sites:
        return message("No head was measured.")
    titles = {
        variant: [f"{plain(shared.site_name(site))}<br>{_rho(model, site, name)}" for site, _ in sites]
        for variant, name in shared.VARIANTS.items()
    }
    grid = Grid(titles["stable_rank"], columns=columns, height=250, legend_rows=0)
    scale = scale_for([shared.in_percent(model.heads[HEADLINE_CHANGE])])
    for panel, (site, heads) in enumerate(sites):
        change, text = shared.in_percent(heads[HEADLINE_CHANGE]), [plain(one) for one in heads["address"]]
        look: dict[str, Any] = {"mode": "markers", "opacity": 0.85, "customdata": change, "text": text}
        for variant, name in shared.VARIANTS.items():
            hover = f"%{{text}}<br>stable rank ({name}) %{{x:.2f}}<br>{HEADLINE} %{{customdata:+.3g}} %"
            points = shared.scatter(heads[variant], scale(change), shared.site_style(site), hover, **look)
            grid.add(panel, points, variant)
        grid.y_scale(panel, scale)
        grid.line(panel, 0.0)
        grid.x(panel, title_text="stable rank of the head")
        grid.row_title(panel, _CHANGE)
    return grid.buttons(shared.variant_views(titles))


def _rho(model: ModelStudy, site: shared.Site, variant: str) -> str:
    """A site's Spearman correlation with the change of CRPS; a blank if unknown."""
    table = model.rank_correlation
    here = (table["stack"] == site[0]) & (table["attention"] == site[1]) & (table["variant"] == variant)
    rows = table[here & (table["metric"] == HEADLINE)]
    if rows.empty or not np.isfinite(float(rows["correlation"].iloc[0])):
        return " "
    row = rows.iloc[0]
    certainty = f"p = {float(row['p_value']):.2g}"
    interval = ""
    if "p_holm" in row:
        interval = f" [{float(row['low']):+.2f}, {float(row['high']):+.2f}]"
        certainty = f"p = {float(row['p_holm']):.2g} by Holm"
    value = f"Spearman correlation {float(row['correlation']):+.2f}{interval}"
    return "<br>".join(map(small, (value, f"{certainty}, {int(row['heads'])} heads")))


def heads_at_bars(study: Study, *, columns: int | None = None) -> go.Figure:
    """Heads of each attention sublayer that must stay, chosen on calibration or on test windows."""
    panels = [(model, *part) for model in study.models for part in shared.by_site(model.heads_at)]
    if not panels:
        return message("heads@ was not measured.")
    titles = [
        f"{wrapped(model.name, 60)}<br>{small(plain(shared.site_name(site)))}" for model, site, _ in panels
    ]
    grid = Grid(titles, columns=columns, height=190, legend_rows=3 if columns == 1 else 1)
    for panel, (_, _, rows) in enumerate(panels):
        once = rows.drop_duplicates("layer")
        outline = {"color": "rgba(0,0,0,0)", "line": {"color": palette.MUTED, "width": 1}}
        look = {"name": "all heads", "legendgroup": "all heads", "hoverinfo": "skip", "marker": outline}
        grid.add(panel, go.Bar(x=once["layer"], y=once["heads"], width=0.8, offset=-0.4, **look))
        for selection in palette.SELECTION:
            grid.add(panel, _stay_bars(rows[rows["selection"] == selection], selection))
        grid.integers(panel, "layer", rows["layer"].max())
        top = float(rows["heads"].max())
        grid.y(panel, range=[0, top * 1.04], tickformat="d", dtick=integer_step(top))
        grid.row_title(panel, "heads")
    grid.figure.update_layout(barmode="group", bargap=0.25)
    return grid.legend()


def _stay_bars(rows: pd.DataFrame, selection: str) -> go.Bar:
    style, changes = palette.SELECTION[selection], shared.in_percent(rows["score_change"])
    return go.Bar(
        x=rows["layer"],
        y=rows["heads_at"],
        customdata=list(zip(rows["heads"], rows["order"], changes, strict=True)),
        name=style.label,
        legendgroup=style.label,
        width=0.36,
        offset=-0.38 if selection == "calibration" else 0.02,
        marker={"color": style.colour},
        hovertemplate="layer %{x}: %{y} of %{customdata[0]} heads must stay<br>removed %{customdata[1]}<br>"
        "score %{customdata[2]:+.3g} %<extra></extra>",
    )


def heads_at_compared(study: Study, *, columns: int | None = None) -> go.Figure:
    """Share of each layer's heads that must stay; one row per attention sublayer kind of a model."""
    rows = [(model, *part) for model in study.models for part in shared.by_site(model.heads_at)]
    if not rows:
        return message("heads@ was not measured.")
    grid = Grid([""], columns=1, height=38 * len(rows) + 20, legend_rows=0)
    shape = len(rows), 1 + max(int(table["layer"].max()) for _, _, table in rows)
    for selection in palette.SELECTION:
        share, words = np.full(shape, np.nan), np.full(shape, "", dtype=object)
        for row, (_, _, table) in enumerate(rows):
            for cell in table[table["selection"] == selection].to_dict("records"):
                share[row, int(cell["layer"])] = cell["heads_at"] / cell["heads"]
                words[row, int(cell["layer"])] = f"{int(cell['heads_at'])}/{int(cell['heads'])}"
        look: dict[str, Any] = {"gap": 2, "textfont": {"size": 10 if columns == 1 else 12}}
        look |= {"text": words, "texttemplate": "%{text}"}
        grid.add(0, shared.heat_map(share, "layer %{x}: %{text} heads must stay", **look), selection)
    grid.integers(0, "layer", shape[1] - 1)
    grid.rows_named(0, [f"{short(model.name)}<br>{plain(shared.site_name(site))}" for model, site, _ in rows])
    grid.colours(palette.SHARE_SCALE, 0, 1)
    return grid.buttons([View(selection, f"chosen on {selection}") for selection in palette.SELECTION])


def score_agreement(study: Study, *, columns: int | None = None) -> go.Figure:
    """Rank correlation of every score with the measured effect; one panel per model, one row per score."""
    models = [model for model in study.models if not model.agreement.empty]
    if not models:
        return message("No score was measured.")
    tables = [model.agreement[model.agreement["group"] == "all"] for model in models]
    names = list(dict.fromkeys(name for table in tables for name in table["score"]))
    names.sort(key=_measured)  # measured effects last: the best that a score can reach
    titles = [plain(model.name) for model in models]
    grid = Grid(titles, columns=columns, height=19 * len(names) + 20, legend_rows=1)
    for panel, table in enumerate(tables):
        for metric, kind in itertools.product(shown_metrics(), palette.KIND):
            rows = table[(table["kind"] == kind) & (table["metric"] == metric)].dropna(subset=["rho"])
            if len(rows):
                grid.add(panel, _score_points(rows, kind, names), metric)
        zero = {"zeroline": True, "zerolinecolor": palette.MUTED, "zerolinewidth": 1, "showgrid": True}
        title = "rank correlation"  # the caption has its sign
        grid.x(panel, range=[-1.05, 1.05], dtick=0.5, title_text=title, **zero)
        words = [plain(name.replace("_", " ")) for name in names]
        measured = [f"<i>measured: {word}</i>" for word in words]
        labels = [m if _measured(name) else w for name, w, m in zip(names, words, measured, strict=True)]
        grid.rows_named(panel, labels, margin=0.6)
        # beside another panel the labels would lie in it
        grid.y(panel, showticklabels=grid.first_in_row(panel))
    grid.legend()
    return grid.buttons(shared.metric_views())


def _measured(score: str) -> bool:
    return score in {"spearman_distance", *map(change_column, shown_metrics())}


def _score_points(rows: pd.DataFrame, kind: str, names: list[str]) -> go.Scatter:
    """Hollow markers are not significant."""
    style = palette.KIND[kind]
    found = rows["expected"].to_numpy(dtype=np.float64) * shared.estimates(rows, "rho")
    found[1:].sort(axis=0)  # a sign of -1 exchanges the limits
    sure = rows["p_holm"].to_numpy(dtype=np.float64) <= 0.05
    hover = (
        f"%{{text}}, {style.label}<br>%{{customdata[0]:+.2f}} (%{{customdata[1]:+.2f}} to "
        "%{customdata[2]:+.2f})<br>p = %{customdata[3]:.2g} by Holm, %{customdata[4]} components"
    )
    trace = shared.scatter(
        found[0],
        [names.index(name) + (-0.16 if kind == "head" else 0.16) for name in rows["score"]],
        style,
        hover,
        mode="markers",
        error_x=shared.error_bars(found, style.colour, width=0),
        customdata=np.column_stack([*found, rows["p_holm"], rows["count"]]).astype(np.float64),
        text=[plain(name.replace("_", " ")) for name in rows["score"]],
    )
    symbols = [style.symbol if one else f"{style.symbol}-open" for one in sure]
    return trace.update(marker={"symbol": symbols, "size": 7, "line": {"color": style.colour, "width": 1.2}})
