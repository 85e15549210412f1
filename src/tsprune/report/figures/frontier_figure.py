"""Time against loss of everything that models can be deployed as, a panel for each model and batch size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from tsprune.report import palette
from tsprune.report.digest import change_column
from tsprune.report.figures import shared
from tsprune.report.figures.layers import short
from tsprune.report.panels import Grid, plain, scale_for

_LOSS = 2.0  # percent that are marked


def time_against_loss(table: pd.DataFrame, *, metric: str = "MASE", columns: int | None = None) -> go.Figure:
    """Change of a metric against the time of a forecast; points that nothing beats are joined by a line.

    table : with the columns of `tsprune.frontiers.FRONTIER`, and of several models `model`
    """
    panels = list(_panels(table))
    grid = Grid([title for title, _ in panels], columns=columns, height=380, legend_rows=2)
    changes = shared.estimates(table, change_column(metric), factor=100)
    scale = scale_for([changes], threshold=1.0)
    for panel, (_, part) in enumerate(panels):
        best = part[part["unbeaten"]].sort_values("time_ratio")
        time, change = 100 * best["time_ratio"], 100 * best[change_column(metric)]
        line = shared.scatter(
            time, scale(change.to_numpy(float)), palette.UNBEATEN, "", mode="lines", width=1
        )
        grid.add(panel, line.update(hoverinfo="skip", hovertemplate=None))
        for runtime, rows in part.groupby("runtime", sort=False):
            style = palette.RUNTIME.get(str(runtime), palette.OTHER)
            hover = f"%{{text}}: %{{x:.3g}} % of the time<br>{metric} {shared.CHANGE}"
            times = shared.estimates(rows, "time_ratio", factor=100)
            found = shared.metric_change(rows, metric)
            look: dict[str, Any] = {"error_x": shared.error_bars(times, style.colour), "mode": "markers"}
            look["text"] = [plain(str(name)) for name in rows["weights"]]
            trace = shared.estimate_trace(times[0], found, style, hover, scale, **look)
            grid.add(panel, trace)
        ticks = _time_ticks(shared.estimates(part, "time_ratio", factor=100))
        grid.x(panel, title_text="time of a forecast (% of the original's)", type="log", **ticks)
        shared.change_axis(grid, panel, scale, _LOSS, metric)
    return grid.legend()


def _time_ticks(times: NDArray[np.float64]) -> dict[str, list[float]]:
    """1, 2, 5, 10, ... on a logarithmic axis of percentages, or every whole digit where these are few."""
    low, high = np.nanmin(times), np.nanmax(times)
    digits = (1, 2, 5) if high / low > 4 else range(1, 10)
    return {"tickvals": [digit * 10.0**power for power in range(-2, 5) for digit in digits]}


def _panels(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """(title, rows) of each panel."""
    if "model" not in table:
        yield from ((f"batch {batch}", part) for batch, part in table.groupby("batch", sort=True))
        return
    for name, one in table.groupby("model", sort=False):
        yield from (
            (f"{short(str(name))}, {title}", part) for title, part in _panels(one.drop(columns="model"))
        )
