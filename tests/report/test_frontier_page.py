"""The page of a frontier: every point is drawn in the panel of its batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from tests.points import frontier_of, point
from tsprune.report.figures.frontier_figure import time_against_loss
from tsprune.report.frontier_page import render_frontier, write_frontier

FOUND = frontier_of(
    point("original", "torch", 1.0, 0.0),
    point("original", "onnx-fp32", 0.25, 0.0),
    point("pruned 30 %", "onnx-fp32", 0.125, 0.05, 0.07),
    point("original", "torch", 1.0, 0.0, batch=64),
)


def test_points_and_the_line_through_those_that_nothing_beats() -> None:
    figure = time_against_loss(FOUND.frame)
    line, torch_, onnx, last_line, last = figure.data
    np.testing.assert_allclose(line.x, [12.5, 25.0])
    np.testing.assert_allclose(torch_.x, [100.0])
    np.testing.assert_allclose(onnx.x, [25.0, 12.5])
    assert list(onnx.text) == ["original", "pruned 30 %"]
    np.testing.assert_allclose([row[0] for row in onnx.customdata], [0.0, 5.0])
    np.testing.assert_allclose(onnx.error_x["array"], [2.5, 1.25])
    assert last.xaxis == last_line.xaxis != torch_.xaxis
    assert [note.text for note in figure.layout.annotations[:2]] == ["batch 1", "batch 64"]
    assert figure.to_dict()["data"] == time_against_loss(FOUND.frame, columns=1).to_dict()["data"]


def test_panels_of_several_models() -> None:
    both = pd.concat([FOUND.frame.assign(model=name) for name in ("bundled:a", "bundled:b")])
    figure = time_against_loss(both)
    titles = [note.text for note in figure.layout.annotations[:4]]
    assert titles == [f"bundled:{name}, batch {size}" for name in "ab" for size in (1, 64)]
    assert len(figure.data) == 2 * len(time_against_loss(FOUND.frame).data)


def test_the_page_begins_with_the_advice(tmp_path: Path) -> None:
    write_frontier(FOUND, tmp_path / "frontier.html")
    page = (tmp_path / "frontier.html").read_text()
    assert page == render_frontier(FOUND)
    assert "for a loss of at most 0, 1 or 2 %: original by onnx-fp32 (4.00 times as fast" in page
    assert page.index("for a loss of") < page.index("<table")
    assert "a&lt;b&gt;" in page
    assert "Timed on: 2 cores" in page
