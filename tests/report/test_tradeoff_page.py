"""The page of a plan: every point is drawn, and the sentences say the numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tsprune.anatomy import Component
from tsprune.pruning import Plan
from tsprune.report import figures, write_tradeoff
from tsprune.report.tradeoff_page import render_tradeoff, tradeoff_headline


def points() -> pd.DataFrame:
    rows = [
        ("search", "stack.1.mlp", 0.002, 0.9),
        ("search", "stack.1.mlp stack.2", 0.008, 0.7),
        ("whole layers", "stack.2", 0.04, 0.8),
    ]
    return pd.DataFrame(
        [
            {
                "way": way, "components": len(what.split()), "what": what, "calibration_loss": change / 2,
                "mase_change": change, "mase_low": change - 0.03, "mase_high": change + 0.05,
                "crps_change": 2 * change, "crps_low": change - 0.03, "crps_high": change + 0.05,
                "ms": 100 * ratio,
                "time_ratio": ratio, "time_ratio_low": ratio - 0.01, "time_ratio_high": ratio + 0.02,
            }
            for way, what, change, ratio in rows
        ]
    )  # fmt: skip


def plan(*addresses: str) -> Plan:
    components = tuple(map(Component.parse, addresses))
    return Plan("a<b>", "timesfm", components, "", {"metric": "MASE", "max_loss": 0.01})


@pytest.mark.parametrize(("view", "column"), [("MASE", "mase_change"), ("CRPS", "crps_change")])
def test_every_point_is_drawn_from_the_original_on(view: str, column: str) -> None:
    figure = figures.accuracy_against_time(points())
    traces = [trace for trace in figure.data if trace.meta["view"] == view]
    assert [trace.name for trace in traces] == ["plan search", "whole layers only"]
    for trace, (_, rows) in zip(traces, points().groupby("way", sort=False), strict=True):
        np.testing.assert_allclose(trace.x, [100.0, *(100 * rows["time_ratio"])])
        drawn = [row[0] for row in trace.customdata]
        np.testing.assert_allclose(drawn, [0.0, *(100 * rows[column])])
        np.testing.assert_allclose(np.asarray(trace.error_x["array"])[1:], 2.0)
        np.testing.assert_allclose(np.asarray(trace.error_x["arrayminus"])[1:], 1.0)
    wide, narrow = figures.accuracy_against_time(points()), figures.accuracy_against_time(points(), columns=1)
    assert wide.to_dict()["data"] == narrow.to_dict()["data"]


def test_mase_is_shown_first() -> None:
    figure = figures.accuracy_against_time(points())
    assert [trace.meta["view"] for trace in figure.data if trace.visible] == ["MASE"] * 2


def test_the_page_says_what_was_measured(tmp_path: Path) -> None:
    chosen = plan("stack.1.mlp", "stack.2")
    said = tradeoff_headline(points(), chosen)
    assert said.startswith("Allowed: +1.00 % MASE on the calibration series. ")
    assert "Without 2 components, forecasts take 70 % of the time (95 % interval 69 to 72 %)" in said
    assert "MASE on the other series changes by +0.80 % (-2.20 to +5.80 %)" in said
    assert "Without stack.2 alone, MASE changes by +4.00 % and forecasts take 80 % of the time" in said
    write_tradeoff(points(), chosen, "2 cores", tmp_path / "curve.html")
    page = (tmp_path / "curve.html").read_text()
    assert page == render_tradeoff(points(), chosen, "2 cores")
    assert "a&lt;b&gt;" in page
    assert "a<b>" not in page
    assert "Timed on: 2 cores" in page
    assert "stack.1.mlp stack.2" in page


def test_where_nothing_can_go() -> None:
    empty = points().iloc[:0]
    assert "No component can be removed" in tradeoff_headline(empty, plan())
    assert "<h1>Accuracy against time</h1>" in render_tradeoff(empty, plan(), "2 cores")
    layers = points().iloc[2:]
    assert tradeoff_headline(layers, plan()).count("%") == 3
