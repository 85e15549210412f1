"""Real series forecast before and after an ablation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from tsprune.report import palette
from tsprune.report.figures.shared import Floats
from tsprune.report.panels import Grid, message, wrapped
from tsprune.studies.study_result import Example, ModelStudy

# how much history is drawn before a forecast: in horizons, and at least so many steps
_HISTORY_HORIZONS, _HISTORY_STEPS = 2, 24
_TITLE_WIDTH = 46  # characters over a panel: three panels side by side, or one on a narrow screen


def forecasts(model: ModelStudy, *, columns: int | None = None) -> go.Figure:
    """Real windows: history, what followed, and the forecast before and after an ablation."""
    if not model.examples:
        return message("No forecast was kept as an example.")
    narrow = columns == 1
    titles = [panel_title(x.configuration, f"after: {x.ablation}") for x in model.examples]
    grid = Grid(titles, columns=columns, height=220, legend_rows=3 if narrow else 1)
    draw_examples(grid, model.examples)
    grid.legend()
    return grid.figure


def panel_title(bold: str, small: str) -> str:
    """Two lines over a panel, no wider than it."""
    return (
        f"<b>{wrapped(bold, _TITLE_WIDTH)}</b><br>"
        f"<span style='font-size:11px'>{wrapped(small, _TITLE_WIDTH)}</span>"
    )


def draw_examples(grid: Grid, examples: Sequence[Example], first: int = 0) -> None:
    """Each example in a panel of its own, from panel `first` on."""
    for panel, example in enumerate(examples, start=first):
        for trace in forecast_traces(example):
            trace.update(showlegend=panel == first)
            grid.add(panel, trace)
        grid.x(panel, title_text="steps from the start of the forecast")
        if grid.first_in_row(panel):
            grid.y(panel, title_text="value (own unit)")


def quantile(forecast: NDArray[np.float32], levels: Sequence[float], level: float) -> Floats:
    """The forecast [H] at `level`, between the nearest of `levels` of `forecast` [Q, H]."""
    order = np.argsort(levels)
    known = np.asarray(levels, dtype=np.float64)[order]
    values = np.asarray(forecast, dtype=np.float64)[order]
    return np.array([np.interp(level, known, values[:, step]) for step in range(values.shape[1])])


def history_of(example: Example) -> Floats:
    """The end of the context that is drawn before the forecast [steps]."""
    steps = max(_HISTORY_HORIZONS * len(example.target), _HISTORY_STEPS)
    return np.asarray(example.context, dtype=np.float64)[-steps:]


def forecast_traces(example: Example) -> list[go.Scatter]:
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
