"""One static picture (SVG) of a study for places that run no JavaScript, such as a README."""

from __future__ import annotations

import io
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tsprune.atomic import write_whole
from tsprune.errors import TspruneError
from tsprune.report import palette
from tsprune.report.digest import HEADLINE, HEADLINE_CHANGE, pruning_curve
from tsprune.report.figures.forecasts import history_drawn, quantile_at
from tsprune.report.figures.pruning import pruning_scale, pruning_spread
from tsprune.report.figures.shared import by_stack, from_zero, in_percent
from tsprune.report.panels import Scale, scale_for
from tsprune.studies.study_result import Example, ModelStudy, Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKER = {"circle": "o", "square": "s", "diamond": "D"}
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "font.family": "DejaVu Sans",
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), palette.MUTED),
    **dict.fromkeys(("axes.labelcolor", "axes.titlecolor"), palette.INK),
    **dict.fromkeys(("xtick.labelcolor", "ytick.labelcolor"), palette.INK),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": palette.GRID,
    "legend.fontsize": 8,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "text.parse_math": False,  # a "$" in a model's name is a dollar sign
    "svg.fonttype": "path",
    "svg.hashsalt": "tsprune",
}


def write_picture(study: Study, path: Path) -> None:
    """Write layer curves, pruning curves and a forecast before and after, a row a model, as SVG.

    Needs the extra `picture` (matplotlib). The same study gives the same bytes.

    Raises TspruneError where matplotlib is missing.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise TspruneError(
            "the picture needs matplotlib: install tsprune with the extra 'picture'"
        ) from error
    with matplotlib.rc_context(_STYLE):
        rows = max(1, len(study.models))
        figure = Figure(figsize=(13, 3.3 * rows), layout="constrained", facecolor="white")
        grid = figure.subplots(rows, 3, squeeze=False)
        layer_scale = scale_for((in_percent(m.layers[HEADLINE_CHANGE]) for m in study.models), threshold=1.0)
        head_scale = pruning_scale(study.models)
        for row, (axes, model) in enumerate(zip(grid, study.models, strict=False)):
            _layers(axes[0], model, layer_scale, study.percent, legend=row == 0)
            _pruning(axes[1], model, head_scale, study.percent, legend=row == 0)
            # another series in every row
            _forecast(axes[2], model.examples[row % len(model.examples)] if model.examples else None)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": "tsprune"})
    write_whole(Path(path), buffer.getvalue())


def _change_axis(axes: Axes, scale: Scale, percent: float) -> None:
    positions, labels = scale.ticks()
    if labels:
        axes.set_yticks(positions, labels)
    axes.set_ylim(*scale.range())
    axes.set_ylabel(f"change of {HEADLINE} (%)")
    level = float(scale(percent))
    axes.axhline(level, color=palette.MUTED, linewidth=0.9, linestyle=":")
    place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "xytext": (0, 2), "ha": "right"}
    _note(axes, f"+{percent:g} %", (1, level), fontsize=7, **place)


def _note(axes: Axes, text: str, at: tuple[float, float], **look: Any) -> None:
    axes.annotate(text, at, textcoords="offset points", color=palette.MUTED, **look)


def _layers(axes: Axes, model: ModelStudy, scale: Scale, percent: float, *, legend: bool) -> None:
    """Stacks follow each other along x; lines break between them."""
    axes.set_title(f"{model.name}: one layer ablated", pad=18)
    ticks: list[str] = []
    for stack, rows in by_stack(model.layers):
        start, count = len(ticks), int(rows["layer"].max()) + 1
        for unit, style in palette.UNIT.items():
            part = rows[rows["unit"] == unit].sort_values("layer")
            changes = scale(in_percent(part[HEADLINE_CHANGE]))
            _curve(axes, start + part["layer"], changes, style, named=not start)
        if start:
            axes.axvline(start - 0.5, color=palette.MUTED, linewidth=0.8)
        place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "xytext": (0, 3), "ha": "center"}
        _note(axes, stack, (start + (count - 1) / 2, 1.0), va="bottom", fontsize=8, **place)
        ticks += [str(layer) for layer in range(count)]
    step = max(1, len(ticks) // 16)
    axes.set_xticks(range(0, len(ticks), step), ticks[::step])
    axes.set_xlabel("layer")
    _change_axis(axes, scale, percent)
    if legend and ticks:
        axes.legend(loc="best")


def _curve(axes: Axes, x: Any, y: Any, style: palette.Style, *, named: bool = True, **look: Any) -> None:
    """A line with markers, in the legend if it is `named` and not empty."""
    label = style.label if named and len(y) else None
    axes.plot(x, y, color=style.colour, marker=_MARKER[style.symbol], label=label, **look)


def _pruning(axes: Axes, model: ModelStudy, scale: Scale, percent: float, *, legend: bool) -> None:
    axes.set_title("heads of the middle layers removed")
    axes.set_xlabel("heads removed (%)")
    if model.pruning.empty:
        axes.text(0.5, 0.5, "no middle layers", transform=axes.transAxes, ha="center", color=palette.MUTED)
        axes.set_axis_off()
        return
    spread = pruning_spread(model.pruning, HEADLINE)
    for low, high, alpha in (("low", "high", 0.18), ("minus", "plus", 0.3)):
        x = spread.index.to_numpy(dtype=np.float64)
        bottom, top = (scale(spread[edge].to_numpy()) for edge in (low, high))
        axes.fill_between(x, bottom, top, color=palette.STRATEGY["random"].colour, alpha=alpha, linewidth=0)
    for strategy in ("high-to-low", "low-to-high", "random"):
        curve = pruning_curve(model, strategy, HEADLINE)
        if len(curve):
            x, y = from_zero(curve["percent"]), scale(from_zero(in_percent(curve["change"])))
            dash = "--" if strategy == "random" else "-"
            _curve(axes, x, y, palette.STRATEGY[strategy], linestyle=dash)
    _change_axis(axes, scale, percent)
    if legend:
        axes.legend(loc="upper left")


def _forecast(axes: Axes, example: Example | None) -> None:
    if example is None:
        axes.set_axis_off()
        return
    axes.set_title(f"{example.configuration}: before and after")
    history = history_drawn(example)
    ahead = np.arange(len(example.target))
    axes.plot(np.arange(-len(history), 0), history, color=palette.MUTED, linewidth=1)
    axes.plot(ahead, example.target, color=palette.INK, linewidth=1.4, label="true future")
    for name, values, style in (
        ("before: median, 10-90 %", example.before, palette.BEFORE),
        ("after", example.after, palette.AFTER),
    ):
        low, middle, high = (quantile_at(values, example.levels, level) for level in (0.1, 0.5, 0.9))
        axes.fill_between(ahead, low, high, color=style.colour, alpha=0.2, linewidth=0)
        axes.plot(ahead, middle, color=style.colour, label=name)
    removed = textwrap.fill(f"ablated: {example.ablation}", 60, max_lines=2, placeholder=" ...")
    axes.set_xlabel(f"steps from the start of the forecast\n{removed}")
    axes.legend(loc="upper left")
