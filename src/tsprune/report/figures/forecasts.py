"""Real series with their forecasts before and after an ablation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from tsprune.report import palette
from tsprune.report.figures.shared import Numbers, band, scatter
from tsprune.report.palette import Style
from tsprune.report.panels import Grid, message, small, wrapped
from tsprune.studies.study_result import Example, ModelStudy

# the history drawn before a forecast: in horizons, and at least this many steps
_HISTORY_HORIZONS, _HISTORY_STEPS = 2, 24
_TITLE_WIDTH = 46  # characters over a panel: three panels side by side, or one on a narrow screen
_FUTURE = Style(palette.INK, "true future")


def forecasts(model: ModelStudy, *, columns: int | None = None) -> go.Figure:
    """Windows of real series: history, true future, and the forecast before and after an ablation."""
    if not model.examples:
        return message("No forecast was kept as an example.")
    titles = [panel_title(x.configuration, f"after: {x.ablation}") for x in model.examples]
    grid = Grid(titles, columns=columns, height=220, legend_rows=3 if columns == 1 else 1)
    draw_examples(grid, model.examples)
    return grid.legend()


def panel_title(bold: str, note: str) -> str:
    """Two lines over a panel, no wider than it."""
    return f"<b>{wrapped(bold, _TITLE_WIDTH)}</b><br>{small(wrapped(note, _TITLE_WIDTH))}"


def draw_examples(grid: Grid, examples: Sequence[Example], first: int = 0) -> None:
    """Draw each example in a panel of its own, from panel `first` on."""
    for panel, example in enumerate(examples, start=first):
        for trace in _traces(example):
            grid.add(panel, trace)
        grid.x(panel, title_text="steps from the start of the forecast")
        grid.row_title(panel, "value (own unit)")


def quantile_at(forecast: NDArray[np.float32], levels: Sequence[float], level: float) -> Numbers:
    """The forecast [H] at `level`, interpolated between the `levels` of `forecast` [Q, H]."""
    order = np.argsort(levels)
    known = np.asarray(levels, dtype=np.float64)[order]
    values = np.asarray(forecast, dtype=np.float64)[order]
    return np.array([np.interp(level, known, values[:, step]) for step in range(values.shape[1])])


def history_drawn(example: Example) -> Numbers:
    """The end of the context that is drawn before the forecast [steps]."""
    steps = max(_HISTORY_HORIZONS * len(example.target), _HISTORY_STEPS)
    return np.asarray(example.context, dtype=np.float64)[-steps:]


def _traces(example: Example) -> list[go.Scatter]:
    """Bands at the back, then history and future, then the medians."""
    history = history_drawn(example)
    ahead = np.arange(len(example.target))
    bands, medians = [], []
    for style, forecast in ((palette.BEFORE, example.before), (palette.AFTER, example.after)):
        low, middle, high = (quantile_at(forecast, example.levels, level) for level in (0.1, 0.5, 0.9))
        colour = palette.translucent(style.colour, 0.2)
        bands.append(band(ahead, low, high, colour, f"{style.label}: 10-90 %"))
        medians.append(_line(ahead, middle, Style(style.colour, f"{style.label}: median"), width=2))
    past = _line(np.arange(-len(history), 0), history, Style(palette.MUTED, "history"), width=1.3)
    future = _line(ahead, example.target, _FUTURE, width=1.5, meta={"ink": "ink"})
    return [*bands, past, future, *medians]


def _line(
    x: NDArray[np.int64], y: NDArray[np.floating], style: Style, *, width: float, **more: Any
) -> go.Scatter:
    hover = f"{style.label}<br>step %{{x}}: %{{y:.4g}}"
    return scatter(x, y, style, hover, mode="lines", width=width, **more)
