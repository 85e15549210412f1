"""One figure for each question, as SVG, from the results alone. Every seed is drawn."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pretrain.laboratory.answers import COMPARED, without_null
from pretrain.laboratory.plan import CONDITIONS, DATA, DEPTHS
from tsprune.atomic import write_whole
from tsprune.report import palette
from tsprune.report.picture import canvas, metadata_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKS = {"circle": "o", "square": "s", "diamond": "D", "triangle-up": "^", "star": "*", "triangle-down": "v"}


_KINDS = {
    "timesfm": "TimesFM\ndecoder",
    "moirai2": "Moirai-2\ndecoder",
    "chronos2": "Chronos-2\nencoder",
    "chronos-bolt": "Chronos-Bolt\nencoder-decoder",
}


def write_all(rows: pd.DataFrame, runs: pd.DataFrame, folder: Path) -> list[Path]:
    """Writes `architecture.svg`, `parroting.svg` and `redundancy.svg`; the same results give the same bytes.

    rows, runs : `results.published()` and `answers.of_runs`
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawings: dict[str, Callable[[Figure], None]] = {
        "architecture": lambda figure: architecture(figure, runs),
        "parroting": lambda figure: parroting(figure, runs),
        "redundancy": lambda figure: redundancy(figure, rows, runs),
    }
    return [_write(draw, folder / f"{name}.svg") for name, draw in drawings.items()]


def _write(draw: Callable[[Figure], None], path: Path) -> Path:
    buffer = io.BytesIO()
    with canvas() as figure_class:
        figure = figure_class(figsize=(9, 3.9), layout="constrained")
        draw(figure)
        figure.savefig(buffer, format="svg", metadata=metadata_of("svg"))
    write_whole(path, buffer.getvalue())
    return path


def architecture(figure: Figure, runs: pd.DataFrame) -> None:
    """Damage without all middle MLPs, and without all middle attention, by architecture."""
    axes = figure.subplots()
    shown = [c for c in COMPARED if (runs["condition"] == c.name).any()]
    for offset, kind in ((-0.15, "mlp"), (0.15, "attention")):
        style = palette.KIND["mlp" if kind == "mlp" else "head"]
        for place, condition in enumerate(shown):
            change = 100 * np.expm1(runs.loc[runs["condition"] == condition.name, f"middle {kind}"])
            axes.bar(place + offset, change.mean(), 0.28, color=style.colour, alpha=0.45)
            axes.plot([place + offset] * len(change), change, **_dots(style))
        axes.bar(0, 0, color=style.colour, label="all MLPs" if kind == "mlp" else "all attention")
    labels = [f"{_KINDS[c.architecture]}\n{c.layers} layers" for c in shown]
    axes.set_xticks(range(len(shown)), labels, fontsize=9)
    axes.set_ylabel("change of MASE (%)")
    axes.set_title("Middle layers ablated; a point is a seed", loc="left")
    _legend(figure, axes)


def parroting(figure: Figure, runs: pd.DataFrame) -> None:
    """CRPS against excess parroting, a point a run, on three kinds of series."""
    runs = without_null(runs)
    suites = {
        "periodic": "periodic series",
        "aperiodic": "series without a period",
        "chaos": "chaotic systems",
    }
    named = {DEPTHS[0].name: "the base", **{c.name: c.differs for c in DATA}}
    every = figure.subplots(1, len(suites))
    for axes, (suite, title) in zip(every, suites.items(), strict=True):
        x, y = runs[f"{suite} excess_parroting"], runs[f"{suite} CRPS"]
        others = ~runs["condition"].isin(named)
        axes.plot(x[others], y[others], **_dots(palette.OTHER), label="other conditions")
        for place, (name, label) in enumerate(named.items()):
            of = runs["condition"] == name
            style = palette.numbered(place, label)
            axes.plot(x[of], y[of], **{**_dots(style), "markersize": 7}, label=label)
        axes.set_xlabel("excess parroting")
        axes.set_title(title, loc="left")
    every[0].set_ylabel("CRPS / Seasonal Naive's")
    _legend(figure, every[0])


def redundancy(figure: Figure, rows: pd.DataFrame, runs: pd.DataFrame) -> None:
    """Left: layers ablated one by one, by depth. Right: the area under the curve of layers that go."""
    left, right = figure.subplots(1, 2)
    alone = rows[(rows["suite"] == "pocket") & (rows["measure"] == "layer") & (rows["metric"] == "MASE")]
    depths = sorted((c for c in CONDITIONS if c.name.startswith("depth-")), key=lambda c: c.layers)
    for place, condition in enumerate(depths):
        style = palette.numbered(place, f"{condition.layers} layers")
        names = runs.index[runs["condition"] == condition.name]
        if not len(names):
            continue
        costs = [alone[alone["run"] == name]["value"].to_numpy() for name in names]
        mean = 100 * np.mean(costs, axis=0)
        left.plot(np.linspace(0, 1, len(mean)), mean, **_line(style), label=style.label)
        areas = runs.loc[names, "area"]
        right.plot([condition.layers] * len(areas), areas, **_dots(style))
    for condition, style in ((c, palette.numbered(4 + i, c.differs)) for i, c in enumerate(_others())):
        areas = runs.loc[runs["condition"] == condition.name]
        if len(areas):
            right.plot(areas["layers"], areas["area"], **_dots(style), label=condition.differs)
    left.axhline(5, color=palette.MUTED, linewidth=0.8, linestyle="--")
    left.set_xlabel("place of the layer (0: first, 1: last)")
    left.set_ylabel("change of MASE (%)")
    left.set_yscale("symlog", linthresh=5)
    left.set_ylim(-3, 200)
    left.set_yticks([0, 5, 10, 50, 100], ["0", "5", "10", "50", "100"])
    left.set_title("One layer ablated; mean over seeds", loc="left")
    right.set_ylim(0)
    right.set_xscale("log", base=2)
    right.set_xticks([4, 8, 16, 32], ["4", "8", "16", "32"])
    right.set_xlabel("layers")
    right.set_ylabel("area: mean of log(1 + change)")
    right.set_title("Layers removed in the best order", loc="left")
    _legend(figure, left, right)


def _others() -> list[Any]:
    return [c for c in CONDITIONS if c.name in ("dropout", "last-patch", "squared-error")]


def _dots(style: palette.Style) -> dict[str, Any]:
    return {
        "linestyle": "none",
        "marker": _MARKS.get(style.symbol, "o"),
        "color": style.colour,
        "markersize": 5,
    }


def _line(style: palette.Style) -> dict[str, Any]:
    return {**_dots(style), "linestyle": "-", "linewidth": 1.4, "markersize": 4}


def _legend(figure: Figure, *every: Axes) -> None:
    """Below the panels, never over data."""
    handles = [pair for axes in every for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
    figure.legend(*zip(*handles, strict=True), loc="outside lower center", ncols=4, frameon=False)
