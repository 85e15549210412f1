"""Figures for slides: the same numbers, drawn without a browser."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from handmade_study import make_model, make_study
from matplotlib.text import Text

from tsprune.cli.output import check_pictures
from tsprune.errors import TspruneError
from tsprune.report import figures
from tsprune.report.picture import canvas
from tsprune.report.section import Picture, picture
from tsprune.report.stills import colour_of, still, write_still, write_stills
from tsprune.report.study_page import study_pictures

STUDY = make_study(make_model("little", layers=3, heads=2))


def test_lines_and_ticks_are_those_of_the_figure() -> None:
    source = figures.removal_curves(STUDY)
    with canvas() as figure_class:
        (axes,) = still(source, "Loss & time", figure_class).axes
    (line,) = (one for one in axes.lines if one.get_linestyle() == "-" and len(one.get_xdata()) == 4)
    shown = next(trace for trace in source.data if trace.visible)
    np.testing.assert_allclose(line.get_xdata(), shown.x)
    np.testing.assert_allclose(line.get_ydata(), shown.y)
    assert axes.get_xlabel() == source.layout.xaxis.title.text


def test_logarithmic_ticks_are_plain_and_lines_outside_have_no_name() -> None:
    source = figures.removal_curves(STUDY)
    source.update_xaxes(type="log")
    source.update_yaxes(range=[-2, 3], tickvals=None, ticktext=None)
    assert [note.text for note in source.layout.annotations if note.yref == "y"] == ["+5 %"]
    with canvas() as figure_class:
        drawn = still(source, "Loss & time", figure_class)
        (axes,) = drawn.axes
        drawn.draw_without_rendering()
    texts = [label.get_text() for label in axes.get_xticklabels()]
    assert texts
    assert all(text == f"{float(text):g}" for text in texts)
    assert "+5 %" not in [text.get_text() for text in axes.texts]


def test_every_kind_of_figure_is_written(tmp_path: Path) -> None:
    some = [picture("heads-at", figures.heads_at_bars, STUDY, values={"percent": 1})]
    files = write_stills(some, tmp_path / "new")
    assert sorted(path.name for path in files) == ["heads-at.png", "heads-at.svg"]
    assert files[0].read_bytes()[:5] == b"<?xml"
    write_still(
        picture("heads", figures.head_maps, STUDY.models[0], values={"headline": "CRPS"}), tmp_path / "a.png"
    )
    assert (tmp_path / "a.png").read_bytes()[1:4] == b"PNG"


def test_colours_of_css() -> None:
    assert colour_of("rgba(255,0,51,0.5)") == (1.0, 0.0, 0.2, 0.5)
    assert colour_of("#0072B2") == "#0072B2"
    assert colour_of(None) == "none"


def test_where_pictures_can_be_written(tmp_path: Path) -> None:
    check_pictures(tmp_path / "folder")
    assert (tmp_path / "folder").is_dir()
    check_pictures(tmp_path / "a.svg")
    for path, how in (("a.pdf", {}), ("a.svg", {"single": False}), ("folder2", {"folder": False})):
        with pytest.raises(TspruneError, match="cannot write pictures"):
            check_pictures(tmp_path / path, **how)


def unreadable(one: Picture) -> list[str]:
    """Texts below 8 px if the picture is 600 px wide, and titles that lie over another or over the legend."""
    with canvas() as figure_class:
        drawn = still(one.still(), one.heading, figure_class)
        drawn.draw_without_rendering()
        shown = drawn.get_tightbbox().width * drawn.dpi  # px, before it is made 600 px wide
        words = [text for text in drawn.findobj(Text) if text.get_visible() and text.get_text().strip()]
        boxes = [text.get_window_extent() for text in drawn.texts]
        boxes += [legend.get_window_extent() for legend in drawn.legends]
    small = [
        text.get_text()
        for text in words
        if text.axes is None and text.get_size() / 72 * drawn.dpi * 600 / shown < 8
    ]
    return small + [f"{a} over {b}" for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)]


def test_pictures_can_be_read_600_px_wide() -> None:
    models = (
        make_model("amazon/chronos-bolt-base", layers=12, heads=12),
        make_model("bundled:timesfm-deep", layers=32, heads=2),
    )
    pictures = study_pictures(make_study(*models))
    assert len(pictures) > 10
    assert {one.key: found for one in pictures if (found := unreadable(one))} == {}
