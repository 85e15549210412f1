"""Rank correlation of every score with the effect of ablation."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tsprune.report import palette
from tsprune.report.digest import change_column, shown_metrics
from tsprune.report.figures.shared import error_bars, estimates, scatter
from tsprune.report.panels import Grid, View, message, plain
from tsprune.studies.study_result import Study

_SURE = 0.05


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
                grid.add(panel, _points(rows, kind, names), metric)
        zero = {"zeroline": True, "zerolinecolor": palette.MUTED, "zerolinewidth": 1, "showgrid": True}
        title = "rank correlation, as the score expects"
        grid.x(panel, range=[-1.05, 1.05], dtick=0.5, title_text=title, **zero)
        grid.rows_named(panel, [_label(name) for name in names], margin=0.6)
        # beside another panel the labels would lie in it
        grid.y(panel, showticklabels=grid.first_in_row(panel))
    grid.legend()
    return grid.buttons([View(metric, f"effect on {metric}") for metric in shown_metrics()])


def _label(name: str) -> str:
    words = plain(name.replace("_", " "))
    return f"<i>measured: {words}</i>" if _measured(name) else words


def _measured(score: str) -> bool:
    """Whether a score is itself an effect of ablation."""
    return score in {"spearman_distance", *map(change_column, shown_metrics())}


def _points(rows: pd.DataFrame, kind: str, names: list[str]) -> go.Scatter:
    """Hollow markers are not significant."""
    style = palette.KIND[kind]
    found = rows["expected"].to_numpy(dtype=np.float64) * estimates(rows, "rho")
    found[1:].sort(axis=0)  # a sign of -1 exchanges the limits
    sure = rows["p_holm"].to_numpy(dtype=np.float64) <= _SURE
    hover = (
        f"%{{text}}, {style.label}<br>%{{customdata[0]:+.2f}} (%{{customdata[1]:+.2f}} to "
        "%{customdata[2]:+.2f})<br>p = %{customdata[3]:.2g} by Holm, %{customdata[4]} components"
    )
    trace = scatter(
        found[0],
        [names.index(name) + (-0.16 if kind == "head" else 0.16) for name in rows["score"]],
        style,
        hover,
        mode="markers",
        error_x=error_bars(found, style.colour, width=0),
        customdata=np.column_stack([*found, rows["p_holm"], rows["count"]]).astype(np.float64),
        text=[plain(name.replace("_", " ")) for name in rows["score"]],
    )
    symbols = [style.symbol if one else f"{style.symbol}-open" for one in sure]
    return trace.update(marker={"symbol": symbols, "size": 7, "line": {"color": style.colour, "width": 1.2}})
