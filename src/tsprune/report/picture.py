"""One static picture for places that run no JavaScript, such as a README: what each layer is worth, and what
to deploy.

Everything is labelled where it is drawn, so that no legend lies over data. Bars: one fact each, no axis to
decipher but that of its unit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from tsprune.atomic import write_whole
from tsprune.choices import ONNX_RUNTIMES, PICTURE_FORMS, TORCH
from tsprune.errors import TspruneError
from tsprune.extras import install
from tsprune.frontiers.frontier_points import ORIGINAL
from tsprune.report import palette
from tsprune.report.figures.shared import by_stack
from tsprune.report.panels import scale_for
from tsprune.report.words import percent
from tsprune.studies.study_result import ModelStudy, Study
from tsprune.text import count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_RECOVERED = re.compile(r"\d+ steps of recovery")
_WIDTH, _ROW = 7.6, 3.1  # inches; at 600 px a letter is 11 px high
_MATTERS = 5.0  # percent of loss from which a layer is drawn in the colour of damage
_METRIC = "MASE"
_EXPORTED = "exported"
_STYLE: Final[dict[str, Any]] = {
    "font.size": 10.5,
    "font.family": "DejaVu Sans",
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "axes.spines.left"), False),
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "text.parse_math": False,  # a "$" in a model's name is a dollar sign
    "svg.fonttype": "path",
    "svg.hashsalt": "tsprune",
}


@dataclasses.dataclass(frozen=True)
class Deployed:
    """A version of a model: its share of the original's time, and its change of MASE with an interval."""

    name: str
    time: float
    change: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class PictureRow:
    """The contents of a row of the picture.

    layers : columns stack, layer, mase_change, mase_low, mase_high; one row per layer ablated
    deployed : versions, the original first
    timed : how times were found
    """

    name: str
    layers: pd.DataFrame
    deployed: Sequence[Deployed]
    timed: str


def write_picture(study: Study, path: Path, *, dark: bool = False) -> None:
    """Writes what each layer is worth and what the smaller versions cost, a row a model, as SVG or PNG.

    Needs the extra `picture` (matplotlib). The same study gives the same bytes.

    Raises TspruneError where matplotlib is missing.
    """
    write_rows([_of_study(model) for model in study.models], path, dark=dark)


def _of_study(model: ModelStudy) -> PictureRow:
    layers = model.layers[model.layers["unit"] == "both"]
    rows = model.removals.to_dict("records") if len(model.removals) else []
    smaller = [
        Deployed(
            _without(heads=row["heads"], mlps=row["mlps"]),
            1 - row["saving"],
            *(row[f"mase_{part}"] for part in ("change", "low", "high")),
        )
        for row in rows[:4]
    ]
    return PictureRow(model.name, layers, (Deployed(ORIGINAL, 1.0, 0.0, 0.0, 0.0), *smaller), "estimated")


def _without(heads: int, mlps: int) -> str:
    """3, 1 -> "without 3 heads, 1 MLP"."""
    parts = [count(number, noun) for number, noun in ((heads, "head"), (mlps, "MLP")) if number]
    return f"without {', '.join(parts)}"


def deployed_of_frontier(points: pd.DataFrame, batch: int, most: float = 0.02) -> list[Deployed]:
    """The original by torch, and the best export of the original and of each version of it.

    points : with the columns of `tsprune.frontiers.FRONTIER`
    most : the fastest export whose loss has an upper limit within this is shown, else that of the least loss
    """
    here = points[points["batch"] == batch]
    torch = here[(here["weights"] == ORIGINAL) & (here["runtime"] == TORCH)]
    if torch.empty:
        raise TspruneError(f"the frontier has no times of the original with batch {batch}")
    found = [Deployed(ORIGINAL, 1.0, 0.0, 0.0, 0.0)]
    exported = here[here["runtime"].isin(list(ONNX_RUNTIMES))]
    for weights, part in exported.groupby("weights", sort=False):
        within = part[part["mase_high"] <= most]
        least, fastest = part["mase_high"].idxmin(), within["time_ratio"]
        row = part.loc[least if within.empty else fastest.idxmin()]
        name = "" if weights == ORIGINAL else f"{_RECOVERED.sub('recovered', weights)}, "
        found.append(_version(f"{name}{_EXPORTED}", row))
    return found


def _version(name: str, row: pd.Series[Any]) -> Deployed:
    return Deployed(
        name, *(float(row[key]) for key in ("time_ratio", "mase_change", "mase_low", "mase_high"))
    )


def write_rows(rows: Sequence[PictureRow], path: Path, *, dark: bool = False) -> None:
    """Writes a picture of `rows`; arguments and errors as of `write_picture`."""
    form = Path(path).suffix.lower().removeprefix(".")
    if form not in PICTURE_FORMS:
        raise TspruneError(f"a picture is an .svg or .png file, not {Path(path).name}")
    buffer = io.BytesIO()
    with canvas(dark) as figure_class:
        figure = figure_class(figsize=(_WIDTH, _ROW * max(1, len(rows))), layout="constrained")
        grid = figure.subplots(max(1, len(rows)), 2, squeeze=False, width_ratios=(1, 1))
        for axes, row in zip(grid, rows, strict=False):
            _layers(axes[0], row, ink(dark))
            _deployed(axes[1], row, ink(dark))
        figure.savefig(buffer, format=form, metadata=metadata_of(form), dpi=200)
    write_whole(Path(path), buffer.getvalue())


def metadata_of(form: str) -> dict[str, Any]:
    """Metadata of a file, without its time: the same picture gives the same bytes."""
    return {"Date": None, "Creator": "tsprune"} if form == "svg" else {}


@dataclasses.dataclass(frozen=True)
class Ink:
    """Colours of a light or dark page."""

    paper: str
    ink: str
    soft: str
    grid: str


def ink(dark: bool) -> Ink:
    """The colours of pictures."""
    if dark:
        return Ink("#14171c", "#e4e8ee", "#a0a9b5", "#323943")
    return Ink("#ffffff", palette.INK, "#59636e", palette.GRID)


@contextlib.contextmanager
def canvas(dark: bool = False) -> Iterator[type[Figure]]:
    """Within it, matplotlib draws in the style of these pictures; gives its class of figures."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise TspruneError(f"pictures need matplotlib; install it with: {install('picture')}") from error
    colours = ink(dark)
    lines = dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), colours.soft)
    words = ("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.labelcolor", "ytick.labelcolor")
    papers = ("figure.facecolor", "savefig.facecolor", "axes.facecolor")
    style: dict[Any, Any] = _STYLE | lines | dict.fromkeys(words, colours.ink)
    style |= dict.fromkeys(papers, colours.paper) | {"grid.color": colours.grid}
    with matplotlib.rc_context(style):
        yield Figure


def _layers(axes: Axes, row: PictureRow, colours: Ink) -> None:
    """A bar for each layer; stacks follow each other along x, with a gap."""
    axes.set_title("Without one layer:\nhow much worse?")
    names = ["mase_change", "mase_low", "mase_high"]
    changes = 100 * row.layers.reindex(columns=names).to_numpy(float)
    scale = scale_for([changes], threshold=10.0)
    ticks: list[tuple[float, str]] = []
    start = 0
    for stack, part in by_stack(row.layers):
        x = start + part["layer"].to_numpy(int)
        value, low, high = 100 * part.reindex(columns=names).to_numpy(float).T
        shades = [palette.ORANGE if one >= _MATTERS else palette.SKY for one in value]
        axes.bar(x, scale(value), color=shades, width=0.8)
        ends = np.nan_to_num([scale(value) - scale(low), scale(high) - scale(value)]).clip(0)
        if ends.any():
            axes.errorbar(x, scale(value), ends, fmt="none", ecolor=colours.soft, lw=1)
        ticks += [(float(place), str(place - start)) for place in x]
        if stack != "stack":
            place = {"xycoords": ("data", "axes fraction"), "ha": "center", "va": "bottom"}
            axes.annotate(stack, (float(x.mean()), 1.0), color=colours.soft, fontsize=9, **place)  # type: ignore[arg-type]
        start = int(x.max()) + 2
    step = max(1, -(-len(ticks) // 9))
    axes.set_xticks([place for place, _ in ticks[::step]], [name for _, name in ticks[::step]])
    positions, labels = scale.ticks(dense=False)
    if labels:
        axes.set_yticks(positions, labels)
    axes.yaxis.grid(True, lw=0.8)
    axes.set_axisbelow(True)
    axes.axhline(0, color=colours.soft, lw=0.8)
    axes.set_xlabel(f"layer of {row.name}")
    axes.set_ylabel(f"change of error ({_METRIC}, %)")


def _deployed(axes: Axes, row: PictureRow, colours: Ink) -> None:
    """A bar of time for each version, with its loss beside it."""
    exported = any(one.name.endswith(_EXPORTED) for one in row.deployed)
    axes.set_title(f"Smaller{' and exported' * exported}:\nhow fast, at what cost?")
    places = np.arange(len(row.deployed))
    shades = [palette.GREY, *([palette.BLUE] * (len(row.deployed) - 1))]
    axes.barh(places, [100 * one.time for one in row.deployed], color=shades, height=0.34)
    for place, one in zip(places, row.deployed, strict=True):
        axes.text(0, float(place) - 0.22, one.name, va="bottom", fontweight="bold", fontsize=9)
        axes.text(100 * one.time + 2, float(place), _cost(one), va="center", fontsize=9)
    axes.set_ylim(len(row.deployed) - 0.5, -0.9)
    axes.set_yticks([])
    axes.set_xlim(0, 165)  # room for the words beside the bars
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.spines["bottom"].set_bounds(0, 100)
    axes.set_xlabel(f"time of a forecast (% of the original's), {row.timed}", fontsize=9.5, loc="left")


def _cost(one: Deployed) -> str:
    if one.time == 1.0 and one.change == 0:
        return "100 %"
    return ", ".join(_words(one))


def _words(one: Deployed) -> Iterator[str]:
    yield f"{100 * one.time:.0f} %"
    if abs(one.change) < 1e-4:
        yield "same forecasts"
    else:
        yield f"error {percent(one.change)}"
