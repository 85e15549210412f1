"""Colours stay apart for readers who see fewer of them, and every axis has a name."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from handmade_explanation import make_explanation, make_single_stack
from handmade_study import ENCODER_DECODER, make_model, make_study

from tests.points import frontier_of, point
from tsprune.report import palette
from tsprune.report.explanation_page import explanation_pictures
from tsprune.report.frontier_page import frontier_picture
from tsprune.report.section import Picture
from tsprune.report.study_page import study_pictures

# Machado, Oliveira and Fernandes (2009), A physiologically-based model for simulation of color vision
# deficiency, severity 1, on linear RGB
SEEN = {
    "all colours": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = XYZ.sum(axis=1)
TOGETHER = {
    name: styles
    for name, styles in vars(palette).items()
    if isinstance(styles, dict) and all(isinstance(one, palette.Style) for one in styles.values())
}


def lab(colour: str, seen: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of a colour as it is seen."""
    values = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    x, y, z = np.cbrt(np.maximum(XYZ @ np.clip(seen @ linear, 0, 1) / WHITE, 1e-6))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("sight", SEEN)
def test_things_in_one_figure_differ_in_colour_or_marker_for_every_sight(sight: str) -> None:
    assert {"UNIT", "STRATEGY", "RUNTIME", "HEAD_SET", "STACK"} <= set(TOGETHER)
    for name, styles in TOGETHER.items():
        for (first, a), (second, b) in itertools.combinations(styles.items(), 2):
            apart = np.linalg.norm(lab(a.colour, SEEN[sight]) - lab(b.colour, SEEN[sight]))
            assert apart > 10 or a.symbol != b.symbol, (name, first, second)
            assert apart > 4, (name, first, second, apart)
    models = [palette.numbered(place, "") for place in range(6)]
    for a, b in itertools.combinations(models, 2):
        assert np.linalg.norm(lab(a.colour, SEEN[sight]) - lab(b.colour, SEEN[sight])) > 4


@pytest.fixture(scope="module")
def drawn() -> list[Picture]:
    """Every figure of every report."""
    models = [
        dataclasses.replace(
            make_model("bolt", stacks=ENCODER_DECODER, layers=3, heads=4), explanation=make_explanation()
        ),
        dataclasses.replace(make_model("timesfm", layers=4, heads=2), explanation=make_single_stack()),
    ]
    found = frontier_of(point("original", "torch", 1.0, 0.0), point("original", "onnx-fp32", 0.25, 0.0))
    return [
        *study_pictures(make_study(*models)),
        *explanation_pictures(make_explanation()),
        frontier_picture(found),
    ]


# quantities that have no unit, and axes whose ticks are names
UNITLESS = ("layer", "head", "position", "stable rank", "rank", "depth", "number", "correlation", "rho",
            "heads", "change", "share", "repetitions", "sharpness", "step", "times", "minus")  # fmt: skip


def test_every_axis_has_a_name_with_its_unit(drawn: list[Picture]) -> None:
    for picture in drawn:
        layout = picture.figure.layout
        used = {(trace.xaxis or "x", trace.yaxis or "y") for trace in picture.figure.data}
        rows: dict[object, set[str]] = {}
        for x, y in used:
            across, up = layout[f"xaxis{x[1:]}"], layout[f"yaxis{y[1:]}"]
            title = across.title.text
            assert title, (picture.key, x)
            assert "%" in title or "(" in title or any(word in title for word in UNITLESS), (
                picture.key,
                title,
            )
            # of panels side by side the first names the axis; names of rows need no other
            named = up.title.text or (up.ticktext is not None and not _is_number(up.ticktext[0]))
            rows.setdefault(up.domain, set()).add("named" if named else "")
        for place, names in rows.items():
            titles = [note.text for note in layout.annotations if note.xref == "paper"]
            assert "named" in names or any("(" in text or ":" in text for text in titles), (
                picture.key,
                place,
            )


def _is_number(text: str) -> bool:
    return text.replace(",", "").replace("-", "").replace(".", "").isdigit()
