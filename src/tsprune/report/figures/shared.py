"""Traces, axes and table access that several figures share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

from tsprune.report import palette
from tsprune.report.digest import change_column, shown_metrics
from tsprune.report.palette import Style
from tsprune.report.panels import VIEW, Grid, Scale, View

VARIANTS = {"stable_rank": "paper", "stable_rank_effective": "effective"}

# of a trace with an interval, for its hover text
ESTIMATE = "%{customdata[0]:+.3g} [%{customdata[1]:+.3g}, %{customdata[2]:+.3g}]"
CHANGE = "%{customdata[0]:+.3g} %<br>95 % interval %{customdata[1]:+.3g} to %{customdata[2]:+.3g} %"

Numbers = NDArray[np.float64]
OnScale = Callable[[Numbers], Numbers]  # values to positions on an axis
Site = tuple[str, str]  # stack, attention


def in_percent(values: pd.Series[Any]) -> Numbers:
    """A column of fractions as percent [rows]."""
    return 100 * np.asarray(values, dtype=np.float64)


def estimates(rows: pd.DataFrame, column: str, *, factor: float = 1.0) -> Numbers:
    """Values, lower and upper limits of a column [3, rows], times `factor`; limits that are absent are NaN.

    The limits of `crps_change` are `crps_low` and `crps_high`; those of `rho`, `rho_low` and `rho_high`, or
    `low` and `high` where the table has one interval.
    """
    stem = column.removesuffix("_change")
    names = [f"{stem}_{side}" if f"{stem}_{side}" in rows else side for side in ("low", "high")]
    nothing = pd.Series(np.nan, index=rows.index)
    columns = [rows.get(name, nothing).to_numpy(dtype=np.float64) for name in (column, *names)]
    return factor * np.array(columns)


def metric_change(rows: pd.DataFrame, metric: str) -> Numbers:
    """Relative change of a metric with its interval, in percent [3, rows]."""
    return estimates(rows, change_column(metric), factor=100)


def changes_of(tables: Iterable[pd.DataFrame]) -> list[Numbers]:
    """Every change in `tables` with the limits of its interval, in percent: the values an axis must hold."""
    columns = [change_column(metric) for metric in shown_metrics()]
    return [estimates(table, column, factor=100) for table in tables for column in columns if column in table]


def from_zero(values: ArrayLike, start: float = 0.0) -> Numbers:
    """`values` [..., N] with `start` in front [..., N + 1]: the unablated model."""
    array = np.asarray(values, dtype=np.float64)
    return np.concatenate([np.full((*array.shape[:-1], 1), start), array], axis=-1)


def differs(p_holm: pd.Series[Any], low: Numbers, high: Numbers) -> NDArray[np.bool_]:
    """Whether a change differs from 0, by its interval and by its corrected p-value [rows]."""
    sure = (p_holm.to_numpy(dtype=np.float64) <= 0.05) & ((low > 0) | (high < 0))
    return np.asarray(sure, dtype=np.bool_)


def error_bars(
    found: Numbers, colour: str, scale: OnScale = np.asarray, *, width: float = 3
) -> dict[str, Any]:
    """Error bars of `found` (value, low, high) [3, N] on `scale`; none where a limit is NaN."""
    value, low, high = scale(found)
    # the limits of a bootstrap need not include the estimate
    above, below = (np.maximum(np.nan_to_num(side), 0) for side in (high - value, value - low))
    sides = {"type": "data", "symmetric": False, "array": above, "arrayminus": below}
    return sides | {"color": palette.translucent(colour, 0.55), "thickness": 1.3, "width": width}


def scatter(
    x: ArrayLike,
    y: ArrayLike,
    style: Style,
    hover: str,
    *,
    mode: str = "lines+markers",
    dash: str = "solid",
    size: float = 8,
    width: float = 2,
    **more: Any,
) -> go.Scatter:
    """Markers or a line in `style`, named by its label; `hover` is a plotly template."""
    return go.Scatter(
        x=np.asarray(x),
        y=np.asarray(y, dtype=np.float64),
        name=style.label,
        legendgroup=style.label,
        mode=mode,
        line={"color": style.colour, "width": width, "dash": dash},
        marker={"color": style.colour, "symbol": style.symbol, "size": size},
        hovertemplate=f"{hover}<extra></extra>",
        **more,
    )


def estimate_trace(
    x: ArrayLike,
    found: Numbers,
    style: Style,
    hover: str,
    scale: OnScale = np.asarray,
    *,
    extra: Sequence[ArrayLike] = (),
    bars: float | None = 3,
    **look: Any,
) -> go.Scatter:
    """`found` (value, low, high) [3, N] over `x` [N] with error bars of end width `bars` (None: no bars).

    customdata [N, 3 + extra] : value, low, high (see `ESTIMATE`, `CHANGE`), then `extra`
    """
    error = None if bars is None else error_bars(found, style.colour, scale, width=bars)
    data = np.column_stack([*found, *(np.asarray(one, dtype=np.float64) for one in extra)])
    return scatter(x, scale(found[0]), style, hover, error_y=error, customdata=data, **look)


def band(
    x: ArrayLike, low: Numbers, high: Numbers, colour: str, name: str, scale: OnScale = np.asarray
) -> go.Scatter:
    """The area from `low` to `high` over `x`; add it before the traces that lie above it."""
    there = np.asarray(x, dtype=np.float64)
    return go.Scatter(
        x=np.concatenate([there, there[::-1]]),
        y=scale(np.concatenate([high, low[::-1]])),
        mode="lines",
        line={"width": 0},
        fill="toself",
        fillcolor=colour,
        name=name,
        legendgroup=name,
        hoverinfo="skip",
    )


def heat_map(z: ArrayLike, hover: str, *, axis: str = "coloraxis", gap: float = 1, **more: Any) -> go.Heatmap:
    """Cells [rows, columns] coloured by colour axis `axis`; `hover` is a plotly template."""
    cells = np.asarray(z, dtype=np.float64)
    return go.Heatmap(
        z=cells, coloraxis=axis, xgap=gap, ygap=gap, hovertemplate=f"{hover}<extra></extra>", **more
    )


def layers_by_heads(heads: pd.DataFrame, column: str) -> pd.DataFrame:
    """One column as a matrix of layers x heads; NaN where a layer has no such head."""
    return heads.assign(**{column: heads[column].astype(float)}).pivot_table(
        index="layer", columns="head", values=column, aggfunc="first", dropna=False
    )


def head_map(
    grid: Grid,
    panel: int,
    matrix: pd.DataFrame,
    hover: str,
    *,
    z: ArrayLike | None = None,
    view: str = "",
    **more: Any,
) -> None:
    """Draw `matrix` (layers x heads) as a heat map with its axes; `z` : colours, if other than its values."""
    places = {"x": matrix.columns.to_numpy(), "y": matrix.index.to_numpy()}
    cells = matrix.to_numpy() if z is None else z
    grid.add(panel, heat_map(cells, f"layer %{{y}}, head %{{x}}<br>{hover}", **places, **more), view)
    grid.integers(panel, "head", float(matrix.columns.max()))
    grid.y(panel, title_text="layer", tickformat="d", dtick=1, showgrid=False, autorange="reversed")


def map_height(heads: pd.DataFrame) -> int:
    """Height in px of a heat map of layers and heads."""
    layers = heads.groupby(["stack", "attention"])["layer"].nunique().max()
    return int(np.clip(26 * layers, 110, 420))


def metric_views() -> list[View]:
    return [View(metric, metric) for metric in shown_metrics()]


def variant_views(titles: Mapping[str, Sequence[str]] | None = None) -> list[View]:
    """A view for each variant of stable rank, with its own panel titles where there are `titles`."""
    layouts = {
        variant: {f"annotations[{panel}].text": title for panel, title in enumerate(texts)}
        for variant, texts in (titles or {}).items()
    }
    return [View(v, f"stable rank: {words}", layouts.get(v, {})) for v, words in VARIANTS.items()]


def by_stack(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The rows of each stack, in order of appearance."""
    return [(str(stack), rows) for stack, rows in table.groupby("stack", sort=False)]


def by_site(table: pd.DataFrame) -> list[tuple[Site, pd.DataFrame]]:
    """The rows of each kind of attention sublayer, in order of appearance."""
    groups = table.groupby(["stack", "attention"], sort=False)
    return [((str(stack), str(attention)), rows) for (stack, attention), rows in groups]


def site_name(site: Site) -> str:
    return f"{site[0]}, {site[1]}-attention"


def site_style(site: Site) -> Style:
    """The style of a kind of attention sublayer; markers of an encoder are hollow."""
    style = palette.ATTENTION.get(site[1], palette.OTHER)
    return Style(
        style.colour, site_name(site), f"{style.symbol}-open" if site[0] == "encoder" else style.symbol
    )


def change_title(metric: str = VIEW) -> str:
    return f"change of {metric} (%), lower is better"


def change_axis(grid: Grid, panel: int, scale: Scale, percent: float, metric: str = VIEW) -> None:
    """The y axis of relative changes of a metric, with lines at no change and at +`percent` %."""
    grid.y_scale(panel, scale)
    grid.line(panel, 0.0)
    grid.line(panel, float(scale(percent)), f"+{percent:g} %")
    grid.row_title(panel, change_title(metric))
