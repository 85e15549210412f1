"""The loss of growing sets of heads and MLPs against the time of a forecast without them."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from tsprune.report import palette
from tsprune.report.digest import change_column, shown_metrics
from tsprune.report.figures import shared
from tsprune.report.figures.layers import short
from tsprune.report.palette import Style
from tsprune.report.panels import Grid, Scale, message, scale_for
from tsprune.studies.removals import ANSWER_LOSSES
from tsprune.studies.study_result import ModelStudy, Study

_CHOSEN = 15  # px of the marker of the answer


def removal_curves(study: Study, *, columns: int | None = None) -> go.Figure:
    """Change of MASE (or CRPS) against the estimated time of a forecast; one line per model."""
    models = [(place, model) for place, model in enumerate(study.models) if len(model.removals)]
    if not models:
        return message("No set of heads and MLPs was removed.")
    rows = len(models) if columns == 1 else -(-len(models) // 2)
    grid = Grid([""], columns=1, height=240, legend_rows=rows)
    scale = scale_for(shared.changes_of(model.removals for _, model in models), threshold=1.0)
    for metric in reversed(shown_metrics()):  # MASE first: the sets are judged by it
        for place, model in models:
            grid.add(0, _curve(model, palette.numbered(place, short(model.name)), metric, scale), metric)
    grid.x(0, title_text="estimated time (% of the original's)")
    shared.change_axis(grid, 0, scale, 100 * ANSWER_LOSSES[-1])
    grid.legend()
    return grid.buttons(shared.metric_views()[::-1])


def _curve(model: ModelStudy, style: Style, metric: str, scale: Scale) -> go.Scatter:
    """From the original (all of the time, no change) on."""
    rows = model.removals
    found = shared.from_zero(shared.estimates(rows, change_column(metric), factor=100))
    time = shared.from_zero(100 * (1 - rows["saving"].to_numpy(float)), 100.0)
    hover = f"{style.label} without %{{text}}: %{{x:.3g}} % of the time<br>{metric} {shared.CHANGE}"
    look: dict[str, Any] = {"text": ["nothing", *map(_parts, rows.to_dict("records"))]}
    trace = shared.estimate_trace(time, found, style, hover, scale, **look)
    sizes = [7, *(_CHOSEN if chosen else 7 for chosen in rows["chosen"])]
    return trace.update(marker={"size": sizes})


def _parts(row: dict[Any, Any]) -> str:
    return f"{row['heads']} heads and {row['mlps']} MLPs"
