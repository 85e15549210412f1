"""Small multiples: panels with common titles, legend, toggle buttons and signed logarithmic scales."""

from __future__ import annotations

import dataclasses
import html
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray
from plotly.subplots import make_subplots

from tsprune.report.palette import GRID, INK, MUTED

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_TITLE_LINE = 17  # px of one line of a panel title
VIEW = "{view}"  # in the title of an axis: the label of the view that is shown
_NARROW_LEGEND = 36  # characters of a row of the legend on a narrow page
_AXIS_ROOM = 62  # px below each row of panels for tick labels and axis title


def plain(text: object) -> str:
    """Text from outside, escaped: plotly renders a few HTML tags."""
    return html.escape(str(text), quote=False)


def wrapped(text: str, width: int) -> str:
    """`text` (from outside) in lines of at most `width` characters, for plotly."""
    return "<br>".join(plain(line) for line in textwrap.wrap(text, width)) or " "


def small(text: str, size: int = 11) -> str:
    """A line of smaller print (in px) for a panel title; `text` is safe for plotly."""
    return f"<span style='font-size:{size}px'>{text}</span>"


@dataclasses.dataclass(frozen=True)
class Scale:
    """Maps values to positions on an axis: unchanged, or asinh(value / threshold).

    asinh is linear within +-threshold and logarithmic beyond; threshold None means linear.
    """

    threshold: float | None
    low: float
    high: float

    def __call__(self, values: ArrayLike) -> NDArray[np.float64]:
        """Positions of `values`, same shape; values that are not finite become NaN (gaps)."""
        array = np.asarray(values, dtype=np.float64)
        array = np.where(np.isfinite(array), array, np.nan)
        return array if self.threshold is None else np.arcsinh(array / self.threshold)

    def ticks(self, *, dense: bool = True, most: int | None = None) -> tuple[list[float], list[str]]:
        """Positions and labels of the ticks of a logarithmic scale, in percent: 0, 1, 10, ...

        most : about as many, evenly spread around 0
        """
        if self.threshold is None:
            return [], []
        reach = max(self.high, -self.low) / self.threshold
        # a tick at 3, 30, ... too while there is room
        factors = (1.0, 3.0) if dense and reach < 1000 else (1.0,)
        steps = [self.threshold * factor * 10.0**power for power in range(12) for factor in factors]
        up = [step for step in steps if step <= max(self.high, self.threshold) * 1.2]
        down = [-step for step in steps if step <= -self.low * 1.2]
        every = -(-(len(down) + len(up)) // most) if most else 1
        values = [*reversed(down[every - 1 :: every]), 0.0, *up[every - 1 :: every]]
        return [float(position) for position in self(values)], [f"{value:,.6g}" for value in values]

    def range(self, margin: float = 0.05) -> tuple[float, float]:
        """The axis range in positions that holds every value, with a margin on both sides."""
        low, high = (float(position) for position in self([self.low, self.high]))
        pad = margin * (high - low) or 1.0
        return low - pad, high + pad


def scale_for(groups: Iterable[ArrayLike], *, threshold: float | None = None, orders: float = 1.5) -> Scale:
    """One scale for all `groups` of values (any shapes, in percent).

    It is logarithmic if the largest size exceeds the threshold by more than `orders` powers of ten. The
    default threshold is the power of ten at or below the median size.
    """
    arrays = [np.asarray(group, dtype=np.float64).ravel() for group in groups]
    values = np.concatenate([*arrays, np.zeros(1)])
    values = values[np.isfinite(values)]
    low, high = float(values.min()), float(values.max())
    sizes = np.abs(values[values != 0])
    if sizes.size == 0:
        return Scale(None, -1.0, 1.0)
    knee = threshold if threshold is not None else 10.0 ** np.floor(np.log10(np.median(sizes)))
    return Scale(float(knee) if sizes.max() > knee * 10.0**orders else None, low, high)


@dataclasses.dataclass(frozen=True)
class View:
    """One state of a figure's buttons; it shows the traces that were added with `view` equal to `key`.

    layout : further changes of the layout that belong to this view
    """

    key: str
    label: str
    layout: Mapping[str, object] = dataclasses.field(default_factory=dict)


class Grid:
    """A figure with panels numbered 0, 1, ... row by row.

    The numbering of axes depends only on the panel, so figures made with different `columns` have the same
    traces and differ in layout alone: the page chooses a layout by its width.
    """

    def __init__(
        self, titles: Sequence[str], *, columns: int | None, height: int = 250, legend_rows: int = 1
    ) -> None:
        """`titles` : one per panel, safe for plotly; `height` : px of one panel without its labels.

        `columns` None: suited to a wide page (two, or three for three panels).
        """
        self.count = len(titles)
        self.columns = max(1, min(columns or (3 if self.count == 3 else 2), self.count))
        self.rows = max(1, math.ceil(self.count / self.columns))
        lines = max((title.count("<br>") + 1 for title in titles), default=1)
        self._title_room = lines * _TITLE_LINE + 6
        self._narrow, self._legend_rows = columns == 1, legend_rows
        self._top = 52 + 24 * legend_rows + self._title_room
        self._plot = self.rows * height + (self.rows - 1) * (_AXIS_ROOM + self._title_room)
        self._named: set[tuple[str, str]] = set()
        gap = (_AXIS_ROOM + self._title_room) / self._plot
        self.figure = make_subplots(
            rows=self.rows,
            cols=self.columns,
            subplot_titles=[title or " " for title in titles],
            vertical_spacing=gap if self.rows > 1 else 0.0,
            horizontal_spacing=(0.16, 0.09, 0.07)[min(self.columns, 3) - 1],
        )
        self._style()

    def _style(self) -> None:
        self.figure.update_layout(
            template="none",
            height=self._top + self._plot + _AXIS_ROOM,
            margin={"t": self._top, "b": _AXIS_ROOM, "l": 62, "r": 16},
            font={"family": _FONT, "size": 12, "color": INK},
            paper_bgcolor="white",
            plot_bgcolor="rgba(0,0,0,0)",
            hovermode="closest",
            showlegend=False,
            modebar={"bgcolor": "rgba(0,0,0,0)", "color": MUTED, "activecolor": MUTED},
        )
        self.figure.update_annotations(font_size=13, yshift=2)
        look = {"showline": False, "gridcolor": GRID, "zeroline": False, "title_standoff": 8, "ticks": ""}
        self.figure.update_xaxes(**look, showgrid=False)
        self.figure.update_yaxes(**look, automargin=True)
        for panel in range(self.count, self.rows * self.columns):  # the last row may not be full
            self.x(panel, visible=False)
            self.y(panel, visible=False)

    def _at(self, panel: int) -> dict[str, int]:
        return {"row": panel // self.columns + 1, "col": panel % self.columns + 1}

    def add(self, panel: int, trace: Any, view: str = "") -> None:
        """Draw `trace` in `panel`, in all views or in one; the legend has each group once per view."""
        if view:
            trace.meta = {**(trace.meta or {}), "view": view}
        group = (view, trace.legendgroup)
        trace.showlegend = bool(trace.legendgroup) and group not in self._named
        self._named.add(group)
        self.figure.add_trace(trace, **self._at(panel))

    def x(self, panel: int, **look: Any) -> None:
        self.figure.update_xaxes(**look, **self._at(panel))

    def y(self, panel: int, **look: Any) -> None:
        self.figure.update_yaxes(**look, **self._at(panel))

    def first_in_row(self, panel: int) -> bool:
        return panel % self.columns == 0

    def row_title(self, panel: int, title: str) -> None:
        """Title the y axis if the panel is the first of its row."""
        if self.first_in_row(panel):
            self.y(panel, title_text=title)

    def integers(self, panel: int, title: str, last: float) -> None:
        """An x axis of layers or heads up to number `last`."""
        self.x(panel, title_text=title, tickformat="d", dtick=integer_step(last))

    def rows_named(self, panel: int, names: Sequence[str], margin: float = 0.5) -> None:
        """A y axis of rows 0, 1, ... from the top, with a name each."""
        last = len(names) - 1
        look = {"range": [last + margin, -margin], "showgrid": False}
        self.y(panel, tickvals=list(range(len(names))), ticktext=list(names), **look)

    def y_scale(self, panel: int, scale: Scale) -> None:
        """Ticks and range of `scale` on the y axis."""
        self.y(panel, range=list(scale.range()), **ticks_of(scale))

    def line(self, panel: int, y: float, label: str = "") -> None:
        """A thin line at position `y`: dotted with a label at its right end, or solid without one."""
        font = {"size": 10, "color": MUTED}
        place = {"annotation_position": "top right", "annotation_text": label, "annotation_font": font}
        look = {"color": MUTED, "width": 1, "dash": "dot" if label else "solid"}
        where = self._at(panel) | {"exclude_empty_subplots": False, "layer": "below"}
        self.figure.add_hline(y, line=look, **where, **(place if label else {}))

    def note(self, panel: int, x: float, y: float, text: str) -> None:
        """Small words that begin at a place of a panel and stand above it; `text` is safe for plotly."""
        place = {"x": x, "y": y, "xanchor": "left", "yanchor": "bottom"}
        look = {"showarrow": False, "font": {"size": 11}}
        self.figure.add_annotation(text=text, **place, **look, **self._at(panel))

    def _above(self, pixels: float) -> float:
        return 1 + pixels / self._plot

    def colours(
        self, colours: object, low: float, high: float, title: str = "", *, second: bool = False, **ticks: Any
    ) -> None:
        """The first or second colour axis of heat maps; with a `title`, a colour bar is above the panels."""
        bar = self._colour_bar(title, 0.55 if second else 0.0) | ticks if title else None
        axis = {"colorscale": colours, "cmin": low, "cmax": high, "showscale": bool(title)}
        self.figure.update_layout(
            {"coloraxis2" if second else "coloraxis": axis | ({"colorbar": bar} if bar else {})}
        )

    def _colour_bar(self, title: str, left: float) -> dict[str, Any]:
        above = self._above(self._title_room + 4)
        place = {"x": left, "xanchor": "left", "len": 0.45, "y": above, "yanchor": "bottom"}
        words = {"title": {"text": title, "side": "top", "font": {"size": 11}}, "tickfont": {"size": 10}}
        shape = {"orientation": "h", "thickness": 9, "tickangle": 0, "outlinewidth": 0, "xpad": 0, "ypad": 0}
        return shape | words | place

    def legend(self) -> go.Figure:
        """The figure with one legend for all panels, above them."""
        if self._narrow:  # items wrap there: more room, so that none lies below the buttons
            names = {trace.name for trace in self.figure.data if trace.showlegend}
            rows = math.ceil(len(names) / max(1, _NARROW_LEGEND // max(map(len, names), default=1)))
            more = 20 * max(0, rows - self._legend_rows)
            self._top += more
            layout = self.figure.layout
            layout.update(height=layout.height + more, margin_t=self._top)
        look = {"orientation": "h", "bgcolor": "rgba(0,0,0,0)", "itemsizing": "constant", "tracegroupgap": 0}
        place = {"x": 0, "xanchor": "left", "y": self._above(self._title_room + 6), "yanchor": "bottom"}
        return self.figure.update_layout(showlegend=True, legend=look | place)

    def buttons(self, views: Sequence[View]) -> go.Figure:
        """The figure with buttons that show one view at a time; the first is shown at the start.

        The button of the view that is shown has a tick, since its shade alone does not tell which it is.
        """
        traces: tuple[Any, ...] = self.figure.data

        def seen(view: View) -> list[bool]:
            return [(trace.meta or {}).get("view", view.key) == view.key for trace in traces]

        for trace, visible in zip(traces, seen(views[0]), strict=True):
            trace.visible = visible
        named = [self._named_axes(view) for view in views]
        labels = [[f"✓ {view.label}" if view is chosen else view.label for view in views] for chosen in views]
        buttons = [
            {
                "name": view.label,
                "label": labels[0][place],
                "method": "update",
                "args": [{"visible": seen(view)}, {**names, **view.layout, **_labelled(labels[place])}],
            }
            for place, (view, names) in enumerate(zip(views, named, strict=True))
        ]
        place = {"x": 0, "xanchor": "left", "y": self._above(self._top - 6), "yanchor": "top"}
        look = {"bgcolor": "#e3e7ec", "bordercolor": "#c3c9d0", "font": {"size": 12, "color": INK}}
        menu = {"type": "buttons", "direction": "right", "showactive": True, "buttons": buttons}
        menu["pad"] = dict.fromkeys("trlb", 0)
        first = {place.replace(".", "_"): title for place, title in named[0].items()}
        return self.figure.update_layout(updatemenus=[menu | place | look], **first)

    def _named_axes(self, view: View) -> dict[str, str]:
        """Titles of the axes that have `VIEW` in their title, by their place in the layout."""
        axes = [*self.figure.select_xaxes(), *self.figure.select_yaxes()]
        titles = {axis.plotly_name: axis.title.text or "" for axis in axes}
        return {f"{n}.title.text": t.replace(VIEW, view.label) for n, t in titles.items() if VIEW in t}


def _labelled(labels: Sequence[str]) -> dict[str, str]:
    """New labels of all buttons, by their place in the layout."""
    return {f"updatemenus[0].buttons[{place}].label": label for place, label in enumerate(labels)}


def integer_step(last: float) -> int:
    """Distance between ticks of whole numbers 0..last, at most twelve of them."""
    return max(1, int(np.ceil((last + 1) / 12)))


def ticks_of(scale: Scale, *, dense: bool = True, most: int | None = None) -> dict[str, Any]:
    """Ticks of a logarithmic `scale` for an axis or a colour bar; empty for a linear one."""
    positions, labels = scale.ticks(dense=dense, most=most)
    return {"tickmode": "array", "tickvals": positions, "ticktext": labels} if labels else {}


def message(text: str) -> go.Figure:
    """A figure that only states why there is nothing to draw."""
    place = {"xref": "paper", "yref": "paper", "x": 0, "xanchor": "left"}
    return go.Figure().update_layout(
        template="none",
        height=90,
        margin=dict.fromkeys("tblr", 10),
        paper_bgcolor="white",
        font={"family": _FONT, "size": 13, "color": INK},
        xaxis={"visible": False},
        yaxis={"visible": False},
        annotations=[{"text": plain(text), "showarrow": False} | place],
    )
