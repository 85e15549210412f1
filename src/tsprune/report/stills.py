"""Figures of a page as files for slides: plotly's description of a figure, drawn by matplotlib.

A letter is 9 to 12 px high in a picture shown 600 px wide. Titles of panels are broken into lines that fit;
the room above the panels is what title, legend and colour bar need: there are no buttons. Only what our
figures use is drawn: lines, markers, bands, error bars, bars and heat maps, in the first view of a figure's
buttons. A browser is not needed.
"""

from __future__ import annotations

import html
import io
import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from tsprune.atomic import write_whole
from tsprune.choices import PICTURE_FORMS
from tsprune.report.picture import Ink, canvas, ink, metadata_of
from tsprune.report.section import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH = 680  # px, 100 to an inch
_HEADING = 34  # px above the figure
_LINE = 15  # px of a line of a panel's title or of the legend
_LETTER = 6.6  # px across, of a title
_COLOUR_BAR = 44  # px above the panels
_SYMBOL = {
    "circle": "o", "square": "s", "diamond": "D", "triangle-up": "^", "triangle-down": "v", "cross": "P",
    "x": "X", "star": "*", "pentagon": "p", "hexagon": "h", "line-ns": "|",
}  # fmt: skip
_DASH = {"dash": "--", "dot": ":", "solid": "-"}
_SMALL = 0.72  # points of a px, for letters
_LEAST = 6.0  # points of the smallest number in a cell that is still read


def write_stills(pictures: Iterable[Picture], folder: Path) -> list[Path]:
    """Writes every picture as KEY.svg and KEY.png into `folder`; gives the files.

    Raises TspruneError where matplotlib is missing.
    """
    return [
        _write(picture, folder / f"{picture.key}.{form}") for picture in pictures for form in PICTURE_FORMS
    ]


def write_still(picture: Picture, path: Path) -> None:
    """Writes one picture to `path`, as its suffix tells; errors as of `write_stills`."""
    _write(picture, path)


def _write(picture: Picture, path: Path) -> Path:
    form = path.suffix.removeprefix(".")
    buffer = io.BytesIO()
    with canvas() as figure_class:
        drawn = still(picture.still(), picture.heading, figure_class)
        drawn.savefig(buffer, format=form, dpi=160, bbox_inches="tight", metadata=metadata_of(form))
    write_whole(path, buffer.getvalue())
    return path


def still(figure: go.Figure, heading: str, figure_class: type[Figure], *, dark: bool = False) -> Figure:
    """A plotly figure of this package, drawn by matplotlib, with a heading."""
    return _Still(figure, heading, figure_class, ink(dark)).figure


class _Still:
    def __init__(self, source: go.Figure, heading: str, figure_class: type[Figure], colours: Ink) -> None:
        self._layout, self._colours = source.layout, colours
        shown = [trace for trace in source.data if trace.visible not in (False, "legendonly")]
        self._entries = self._of_legend(shown)
        self._titles = self._wrapped_titles()
        margin = source.layout.margin
        above = _HEADING + self._room_above()
        self._height = (source.layout.height or 300) - (margin.t or 0) + above
        self._left, self._right = self._room_of_names() / _WIDTH, 1 - (margin.r or 0) / _WIDTH
        self._bottom, self._top = (margin.b or 0) / self._height, 1 - above / self._height
        self.figure: Figure = figure_class(figsize=(_WIDTH / 100, self._height / 100), dpi=100)
        self._panels: dict[tuple[str, str], Axes] = {}
        self._maps: dict[str, Any] = {}
        for trace in shown:
            self._trace(trace)
        for panel, axes in self._panels.items():
            self._axis(axes, "x", panel[0])
            self._axis(axes, "y", panel[1])
        self._lines()
        self._notes()
        self._bars_of_colours()
        self._legend()
        view = ""
        if source.layout.updatemenus:
            view = f" ({source.layout.updatemenus[0].buttons[0].name})"
        place = 12 / _WIDTH, 1 - 0.62 * _HEADING / self._height
        self.figure.text(*place, plain_text(heading) + view, size=13, weight="bold")

    def _wrapped_titles(self) -> list[str]:
        """The text of every annotation; titles of panels in lines that are no wider than the panels."""
        panels = [self._layout[name].domain or (0, 1) for name in self._layout if name.startswith("xaxis")]
        widest = (_WIDTH - (self._layout.margin.l or 0)) * max((b - a for a, b in panels), default=1)
        found = []
        for note in self._layout.annotations:
            text = plain_text(note.text)
            lines = [textwrap.fill(line, max(12, int(widest / _LETTER))) for line in text.split("\n")]
            found.append("\n".join(lines) if note.xref == "paper" else text)
        return found

    def _room_of_names(self) -> float:
        """Px left of the panels: names of rows may be long."""
        axes = [self._layout[part] for part in self._layout if part.startswith("yaxis")]
        lines = [
            line for axis in axes for name in axis.ticktext or () for line in plain_text(name).split("\n")
        ]
        return max(self._layout.margin.l or 0, 6 * max(map(len, lines), default=0) + 16)

    def _room_of_titles(self) -> float:
        """Px of the titles of a row of panels."""
        notes = zip(self._layout.annotations, self._titles, strict=True)
        lines = (text.count("\n") + 1 for note, text in notes if note.xref == "paper")
        return 8 + _LINE * max(lines, default=0)

    def _room_above(self) -> float:
        """Px between the heading and the first row of panels: legend, colour bar and titles."""
        # iterating gives the parts that are set, coloraxis2 among them
        scales = [
            part for part in self._layout if part.startswith("coloraxis") and self._layout[part].showscale
        ]
        rows = -(-len(self._entries) // self._across()) if self._entries else 0
        legend = 1.3 * _LINE * rows + 8 if rows else 0
        return self._room_of_titles() + (_COLOUR_BAR if scales else 0) + legend

    def _across(self) -> int:
        """Entries of the legend in a row."""
        widest = max((len(entry.get_label()) for entry in self._entries), default=1)
        return max(1, min(4, int((_WIDTH - 60) / (widest * _LETTER + 44))))

    def _at(self, x: float, y: float) -> tuple[float, float]:
        """A place on plotly's paper as a share of the figure."""
        return self._left + x * (self._right - self._left), self._bottom + y * (self._top - self._bottom)

    def _axes(self, trace: Any) -> Axes:
        panel = trace.xaxis or "x", trace.yaxis or "y"
        if panel not in self._panels:
            across, up = (self._described(one).domain or (0, 1) for one in panel)
            left, bottom = self._at(across[0], up[0])
            right, top = self._at(across[1], up[1])
            self._panels[panel] = self.figure.add_axes((left, bottom, right - left, top - bottom))
        return self._panels[panel]

    def _described(self, name: str) -> Any:
        return self._layout[f"{name[0]}axis{name[1:]}"]

    def _trace(self, trace: Any) -> None:
        axes = self._axes(trace)
        if trace.type == "heatmap":
            self._heat_map(axes, trace)
        elif trace.type == "bar":
            self._bars(axes, trace)
        elif trace.fill == "toself":
            axes.fill(_values(trace.x), _values(trace.y), color=colour_of(trace.fillcolor), lw=0)
        else:
            self._scatter(axes, trace)

    def _scatter(self, axes: Axes, trace: Any) -> None:
        look: dict[str, Any]
        x, y, mode = _values(trace.x), _values(trace.y), trace.mode or "lines"
        shade = self._colours.ink if (trace.meta or {}).get("ink") else trace.line.color or trace.marker.color
        shade = colour_of(shade) if isinstance(shade, str) else self._colours.ink
        for side, bars in (("xerr", trace.error_x), ("yerr", trace.error_y)):
            if bars.array is not None:
                ends = np.stack([_values(bars.arrayminus), _values(bars.array)])
                look = {side: ends, "ecolor": colour_of(bars.color) if bars.color else shade}
                axes.errorbar(x, y, fmt="none", lw=1, capsize=2, **look)
        if "lines" in mode:
            style = _DASH.get(trace.line.dash or "solid", "-")
            axes.plot(x, y, color=shade, ls=style, lw=0.8 * (trace.line.width or 2))
        if "markers" in mode:
            self._markers(axes, x, y, trace, shade)
        if "text" in mode:
            for where, what, word in zip(x, y, trace.text, strict=True):
                look = {"textcoords": "offset points", "va": "center", "size": 8}
                axes.annotate(plain_text(word), (where, what), (4, 0), annotation_clip=False, **look)

    @staticmethod
    def _markers(axes: Axes, x: Any, y: Any, trace: Any, shade: Any) -> None:
        count = len(x)
        symbols, sizes = (_each(one, count) for one in (trace.marker.symbol, trace.marker.size))
        for place in range(count):
            name, size = (
                str(symbols[place] or "circle"),
                float(sizes[place] if sizes[place] is not None else 6),
            )
            hollow = name.endswith("-open")
            axes.plot(
                x[place : place + 1], y[place : place + 1], ls="none", color=shade, ms=_SMALL * size,
                marker=_SYMBOL.get(name.removesuffix("-open"), "o"), mfc="none" if hollow else shade,
                alpha=trace.opacity,
            )  # fmt: skip

    @staticmethod
    def _bars(axes: Axes, trace: Any) -> None:
        look: dict[str, Any] = {"width": trace.width or 0.8, "facecolor": colour_of(trace.marker.color)}
        if trace.marker.line.width:
            look |= {"edgecolor": colour_of(trace.marker.line.color), "lw": 1}
        x = _values(trace.x)
        if trace.offset is not None:
            x, look["align"] = x + float(trace.offset), "edge"
        axes.bar(x, _values(trace.y), **look)

    def _heat_map(self, axes: Axes, trace: Any) -> None:
        from matplotlib.colors import LinearSegmentedColormap

        axis = self._layout[trace.coloraxis] if trace.coloraxis else None
        scale = axis.colorscale if axis is not None else trace.colorscale
        low, high = (axis.cmin, axis.cmax) if axis is not None else (trace.zmin, trace.zmax)
        steps = [(float(at), colour_of(colour)) for at, colour in scale]
        z = np.ma.masked_invalid(np.asarray(trace.z, dtype=np.float64))
        x, y = (_edges(values, size) for values, size in ((trace.x, z.shape[1]), (trace.y, z.shape[0])))
        drawn = axes.pcolormesh(
            x, y, z, cmap=LinearSegmentedColormap.from_list("", steps), vmin=low, vmax=high
        )
        if trace.coloraxis:
            self._maps.setdefault(trace.coloraxis, drawn)
        if trace.texttemplate:
            self._cells(axes, trace, z, (x[:-1] + x[1:]) / 2, (y[:-1] + y[1:]) / 2, drawn)

    def _cells(self, axes: Axes, trace: Any, z: Any, x: Any, y: Any, drawn: Any) -> None:
        room = axes.get_position().width * _WIDTH / z.shape[1]  # px of a cell
        for (row, column), value in np.ndenumerate(z.filled(np.nan)):
            if not np.isfinite(value):
                continue
            word = trace.text[row][column] if "text" in trace.texttemplate else f"{value:.2f}"
            red, green, blue, _ = drawn.cmap(drawn.norm(value))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            size = min(8.0, _SMALL * room / (0.66 * max(1, len(word))))
            if size < _LEAST:
                continue
            look: dict[str, Any] = {"ha": "center", "va": "center", "size": size}
            axes.text(x[column], y[row], plain_text(word), color="white" if dark else "black", **look)

    def _axis(self, axes: Axes, side: str, name: str) -> None:
        from matplotlib.collections import QuadMesh
        from matplotlib.ticker import MaxNLocator, MultipleLocator

        about = self._described(name)
        if about.visible is False:
            axes.set_axis_off()
            return
        if about.type == "log":
            _logarithmic(axes, side)
        if about.range is not None:
            limits = [10.0**one for one in about.range] if about.type == "log" else list(about.range)
            getattr(axes, f"set_{side}lim")(limits)
        elif about.autorange == "reversed":
            getattr(axes, f"invert_{side}axis")()
        elif about.rangemode == "tozero":
            getattr(axes, f"set_{side}lim")(0)
        place = getattr(axes, f"{side}axis")
        if about.tickvals is not None:
            texts = [plain_text(one) for one in about.ticktext or map("{:g}".format, about.tickvals)]
            place.set_ticks(list(about.tickvals), texts, minor=False)
            place.set_ticks([], minor=True)
        elif isinstance(about.dtick, int | float) and about.type != "category":
            place.set_major_locator(MultipleLocator(about.dtick))
        elif any(isinstance(one, QuadMesh) for one in axes.collections):  # positions are whole numbers
            place.set_major_locator(MaxNLocator(integer=True))
        if about.showticklabels is False:
            place.set_ticklabels([])
        if about.showgrid is not False:
            place.grid(True, color=self._colours.grid, lw=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, labelsize=8.5)
        if about.title.text:
            getattr(axes, f"set_{side}label")(plain_text(about.title.text), size=9)

    def _panel_of(self, axis: str) -> Axes | None:
        return next((axes for panel, axes in self._panels.items() if axis in panel), None)

    def _lines(self) -> None:
        for shape in self._layout.shapes:
            axes = self._panel_of(shape.yref)
            if axes is not None:
                style = _DASH.get(shape.line.dash or "solid", "-")
                axes.axhline(shape.y0, color=colour_of(shape.line.color), lw=0.9, ls=style, zorder=0.9)

    def _notes(self) -> None:
        for note, text in zip(self._layout.annotations, self._titles, strict=True):
            if note.xref == "paper":
                x, y = self._at(note.x, note.y)
                look: dict[str, Any] = {"ha": note.xanchor or "center", "va": "bottom", "size": 9}
                self.figure.text(x, y + 4 / self._height, text, **look)
            elif (axes := self._panel_of(note.yref)) is not None:
                spot = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom"}
                low, high = sorted(axes.get_ylim())
                if not low <= note.y <= high:  # of a line outside of the panel
                    continue
                behind = {"facecolor": self._colours.paper, "alpha": 0.7, "lw": 0, "pad": 0.5}
                axes.annotate(text, (note.x, note.y), size=8, color=self._colours.soft, bbox=behind, **spot)  # type: ignore[arg-type]

    def _bars_of_colours(self) -> None:
        for name, drawn in self._maps.items():
            bar = self._layout[name].colorbar
            if not self._layout[name].showscale or bar.y is None:
                continue
            left, _ = self._at(bar.x, 1)
            bottom = self._top + (self._room_of_titles() + 16) / self._height
            place = self.figure.add_axes(
                (left, bottom, bar.len * (self._right - self._left), 9 / self._height)
            )
            drawn_bar = self.figure.colorbar(drawn, cax=place, orientation="horizontal")
            if bar.tickvals is not None:
                drawn_bar.set_ticks(list(bar.tickvals), labels=[plain_text(one) for one in bar.ticktext])
            place.tick_params(labelsize=7.5, length=0)
            place.set_title(plain_text(bar.title.text), size=8.5, weight="normal", pad=3)

    def _of_legend(self, shown: Sequence[Any]) -> list[Any]:
        """An entry of the legend for each trace that has one."""
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch

        handles: list[Any] = []
        look: dict[str, Any]
        for trace in shown:
            if not trace.showlegend or not self._layout.showlegend:
                continue
            label = plain_text(trace.name)
            if trace.type == "bar" or trace.fill == "toself":
                colour = trace.fillcolor if trace.type != "bar" else trace.marker.color
                look = {"facecolor": colour_of(colour), "edgecolor": self._colours.soft, "lw": 0.5}
                handles.append(Patch(label=label, **look))
                continue
            mode = trace.mode or "lines"
            shade = self._colours.ink if (trace.meta or {}).get("ink") else colour_of(trace.line.color)
            style = _DASH.get(trace.line.dash or "solid", "-") if "lines" in mode else "none"
            symbol = str(_each(trace.marker.symbol, 1)[0] or "circle").removesuffix("-open")
            marker = _SYMBOL.get(symbol, "o") if "markers" in mode else ""
            handles.append(Line2D([], [], color=shade, ls=style, marker=marker, ms=5, label=label))
        return handles

    def _legend(self) -> None:
        if self._entries:
            place = self._left, 1 - (_HEADING + 2) / self._height
            look: dict[str, Any] = {"loc": "upper left", "frameon": False, "fontsize": 8.5, "borderpad": 0}
            self.figure.legend(handles=self._entries, bbox_to_anchor=place, ncols=self._across(), **look)


def _logarithmic(axes: Axes, side: str) -> None:
    """A logarithmic axis with ticks at 1, 2, 5, 10, ..., as plain numbers."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    getattr(axes, f"set_{side}scale")("log")
    place = getattr(axes, f"{side}axis")
    place.set_major_locator(LogLocator(subs=(1, 2, 5)))
    place.set_minor_locator(NullLocator())
    place.set_major_formatter(StrMethodFormatter("{x:g}"))


def plain_text(text: object) -> str:
    """Text for plotly without its markup."""
    lines = re.sub(r"<br\s*/?>", "\n", str(text))
    return html.unescape(re.sub(r"<[^>]+>", "", lines))


def colour_of(colour: str | None) -> Any:
    """A colour of CSS as matplotlib takes it."""
    numbers = re.fullmatch(r"rgba?\(([^)]+)\)", colour or "")
    if numbers is None:
        return colour or "none"
    red, green, blue, *alpha = (float(one) for one in numbers[1].split(","))
    return (red / 255, green / 255, blue / 255, *alpha)


def _values(values: Any) -> Any:
    """Numbers, or the names of a category axis."""
    found = np.asarray(values)
    words = found.dtype.kind in "US" or any(isinstance(one, str) for one in values)
    return found if words else np.asarray(values, dtype=np.float64)


def _each(value: Any, count: int) -> Any:
    """One value for each of `count` points."""
    return value if isinstance(value, list | tuple | np.ndarray) else [value] * count


def _edges(values: Any, count: int) -> Any:
    """The borders of `count` cells at places `values`, or values that are borders."""
    places = np.arange(count, dtype=np.float64) if values is None else np.asarray(values, dtype=np.float64)
    if len(places) == count + 1:
        return places
    half = np.diff(places) / 2 if count > 1 else np.array([0.5])
    inner = places[:-1] + half if count > 1 else places[:0]
    return np.concatenate([places[:1] - half[:1], inner, places[-1:] + half[-1:]])
