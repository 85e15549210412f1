"""Small multiples: a grid of panels with one look, titles, a legend and toggle buttons on top."""

from __future__ import annotations

import dataclasses
import html
import math
import textwrap
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tsprune.report.palette import GRID, INK, MUTED
from tsprune.report.scale import Scale

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_TITLE_LINE = 17  # px a line of a panel title takes
_AXIS_ROOM = 62  # px below each row of panels for tick labels and axis title


def plain(text: str) -> str:
    """Text from outside for a place where plotly reads a few HTML tags."""
    return html.escape(text, quote=False)


def wrapped(text: str, width: int) -> str:
    """`text` (from outside) broken into lines of at most `width` characters, for plotly."""
    return "<br>".join(plain(line) for line in textwrap.wrap(text, width)) or " "


@dataclasses.dataclass(frozen=True)
class View:
    """One state of a figure's buttons: the traces whose meta["view"] is `key` are shown.

    layout : further changes of the layout that belong to this view
    """

    key: str
    label: str
    layout: dict[str, object] = dataclasses.field(default_factory=dict)


class Grid:
    """A figure with panels numbered 0, 1, ... row by row.

    The numbering of axes depends only on the panel, so figures made with different `columns` have
    the same traces and differ in layout alone: the page switches between them by its width.
    """

    def __init__(
        self, titles: Sequence[str], *, columns: int | None, height: int = 250, legend_rows: int = 1
    ) -> None:
        """`titles` : one a panel, safe for plotly; `height` : px of one panel without its labels.

        `columns` None: as fits a wide page, two, or three for three panels.
        """
        self.count = len(titles)
        self.columns = max(1, min(columns or (3 if self.count == 3 else 2), self.count))
        self.rows = max(1, math.ceil(self.count / self.columns))
        self._lines = max((title.count("<br>") + 1 for title in titles), default=1)
        self._title_room = self._lines * _TITLE_LINE + 6
        self._top = 52 + 24 * legend_rows + self._title_room
        self._plot = self.rows * height + (self.rows - 1) * (_AXIS_ROOM + self._title_room)
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
            font={"family": FONT, "size": 12, "color": INK},
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
            self.figure.update_xaxes(visible=False, **self._at(panel))
            self.figure.update_yaxes(visible=False, **self._at(panel))

    def _at(self, panel: int) -> dict[str, int]:
        return {"row": panel // self.columns + 1, "col": panel % self.columns + 1}

    def add(self, panel: int, trace: Any) -> None:
        """Draw `trace` in `panel`."""
        self.figure.add_trace(trace, **self._at(panel))

    def x(self, panel: int, **look: Any) -> None:
        self.figure.update_xaxes(**look, **self._at(panel))

    def y(self, panel: int, **look: Any) -> None:
        self.figure.update_yaxes(**look, **self._at(panel))

    def first_in_row(self, panel: int) -> bool:
        """Whether the panel carries the row's y title."""
        return panel % self.columns == 0

    def y_scale(self, panel: int, scale: Scale) -> None:
        """Ticks and range of `scale` on the y axis."""
        positions, labels = scale.ticks()
        look: dict[str, Any] = {"range": list(scale.range())}
        if labels:
            look |= {"tickmode": "array", "tickvals": positions, "ticktext": labels}
        self.y(panel, **look)

    def line(self, panel: int, y: float, label: str = "", colour: str = MUTED) -> None:
        """A thin line at position `y`: dotted with a label at its right end, or solid without one."""
        axis = "" if panel == 0 else str(panel + 1)
        self.figure.add_shape(
            type="line",
            xref=f"x{axis} domain",
            x0=0,
            x1=1,
            yref=f"y{axis}",
            y0=y,
            y1=y,
            line={"color": colour, "width": 1, "dash": "dot" if label else "solid"},
            layer="below",
        )
        if label:
            self.figure.add_annotation(
                xref=f"x{axis} domain",
                x=1,
                xanchor="right",
                yref=f"y{axis}",
                y=y,
                yanchor="bottom",
                text=label,
                showarrow=False,
                font={"size": 10, "color": colour},
            )

    def above(self, pixels: float) -> float:
        """A distance above the panels, in the figure's paper coordinates."""
        return 1 + pixels / self._plot

    def colour_bar(self, title: str, left: float) -> dict[str, Any]:
        """A lying colour bar above the panels that starts at `left` of the figure's width."""
        return {
            "orientation": "h",
            "title": {"text": title, "side": "top", "font": {"size": 11}},
            "x": left,
            "xanchor": "left",
            "len": 0.45,
            "y": self.above(self._title_room + 4),
            "yanchor": "bottom",
            "thickness": 9,
            "tickfont": {"size": 10},
            "tickangle": 0,
            "outlinewidth": 0,
            "xpad": 0,
            "ypad": 0,
        }

    def legend(self) -> None:
        """One legend for all panels, above them."""
        self.figure.update_layout(
            showlegend=True,
            legend={
                "orientation": "h",
                "x": 0,
                "xanchor": "left",
                "y": self.above(self._title_room + 6),
                "yanchor": "bottom",
                "bgcolor": "rgba(0,0,0,0)",
                "itemsizing": "constant",
                "tracegroupgap": 0,
            },
        )

    def buttons(self, views: Sequence[View]) -> None:
        """Buttons that show one view at a time; the first is shown at the start."""
        traces: tuple[Any, ...] = self.figure.data

        def seen(view: View) -> list[bool]:
            return [(trace.meta or {}).get("view", view.key) == view.key for trace in traces]

        for trace, visible in zip(traces, seen(views[0]), strict=True):
            trace.visible = visible
        self.figure.update_layout(
            updatemenus=[
                {
                    "type": "buttons",
                    "direction": "right",
                    "showactive": True,
                    "x": 0,
                    "xanchor": "left",
                    "y": self.above(self._top - 6),
                    "yanchor": "top",
                    "pad": {"t": 0, "r": 0, "l": 0, "b": 0},
                    "bgcolor": "#e3e7ec",
                    "bordercolor": "#c3c9d0",
                    "font": {"size": 12, "color": INK},
                    "buttons": [
                        {"label": v.label, "method": "update", "args": [{"visible": seen(v)}, v.layout]}
                        for v in views
                    ],
                }
            ]
        )


def message(text: str) -> go.Figure:
    """A figure that says why there is nothing to draw."""
    figure = go.Figure()
    figure.update_layout(
        template="none",
        height=90,
        margin={"t": 10, "b": 10, "l": 10, "r": 10},
        paper_bgcolor="white",
        font={"family": FONT, "size": 13, "color": INK},
        xaxis={"visible": False},
        yaxis={"visible": False},
        annotations=[
            {
                "text": plain(text),
                "showarrow": False,
                "xref": "paper",
                "yref": "paper",
                "x": 0,
                "xanchor": "left",
            }
        ],
    )
    return figure
