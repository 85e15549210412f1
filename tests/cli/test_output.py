"""Tables of the command line: names and numbers stay whole at any width."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from rich.console import Console

from tsprune.cli import output


def test_a_long_path_leaves_room_for_numbers_and_titles(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), width=60)
    monkeypatch.setattr(output, "out", console)
    path = "/a/folder/" + "x" * 90 + "/end"
    title = "A title that says more than fits into the width of sixty characters"
    output.print_frame(pd.DataFrame({"model": [path], "MASE": [1.2345], "windows": [369]}), title)
    first, *lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert first == title
    assert "1.2345" in "".join(lines)
    assert "369" in "".join(lines)
    cells = [line.split("│")[1].strip() for line in lines if line.startswith("│")]
    assert "".join(cells) == path  # folded: no terminal of this width has room for it
    assert max(map(len, lines)) <= 60


@pytest.mark.parametrize(("width", "whole"), [(150, True), (60, False)])
def test_numbers_and_names_are_whole_at_any_width(
    monkeypatch: pytest.MonkeyPatch, width: int, whole: bool
) -> None:
    """In a narrow terminal, words that all rows share go to the title, and columns to tables below."""
    frame = pd.DataFrame(
        {
            "ablation": ["none", "decoder.0.cross.head.11"],
            "configuration": ["wikipedia_pageviews/D/short"] * 2,
            "mode": ["zero"] * 2,
            "MASE": [1.2345, 1.5],
            "CRPS": [0.9876, 0.9999],
            "spearman_distance": [0.5432, 0.25],
            "other_figure": [0.125, 0.5],
            "one_more": [0.0625, 0.5],
        }
    )
    console = Console(file=io.StringIO(), width=width)
    monkeypatch.setattr(output, "out", console)
    output.print_frame(frame, "scores")
    title, *table = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    written = "\n".join(table)
    assert all(number in written for number in ("1.2345", "0.9876", "0.5432", "0.1250", "0.0625"))
    assert (title == "scores") == whole
    assert (title == "scores; configuration wikipedia_pageviews/D/short; mode zero") != whole
    assert written.count("decoder.0.cross.head.11") == written.count("┏") == (1 if whole else 2)
    assert max(map(len, table)) <= width


def test_names_are_whole_at_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that several long names tell apart are grouped by the first."""
    models = ["google/timesfm-2.5-200m-pytorch", "Salesforce/moirai-1.1-R-small"]
    names = {
        "ablation": ["encoder.11.self.head.10", "none", "decoder.11.cross.head.11"],
        "configuration": ["wikipedia_pageviews/D/short", "us_employment/M/short", "electricity/15T/long"],
    }
    frame = pd.DataFrame(
        {
            "model": [models[0], models[1], models[0]],
            **names,
            "mode": ["zero", "mean", "zero"],
            "mase": [1.2345, 0.5, 12.5],
            "spearman_distance": [0.1, 0.2, 0.3],
        }
    )
    console = Console(file=io.StringIO(), width=80)
    monkeypatch.setattr(output, "out", console)
    output.print_frame(frame, "cells")
    written = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, written.splitlines())) <= 80
    for name in (*models, *names["ablation"], *names["configuration"], "1.2345", "12.5000", "0.3000"):
        assert name in written, name
    assert f"cells; model {models[0]}" in written
