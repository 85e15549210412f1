"""Tables of a page: cells read in the unit of their column, and keep exact values."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from tsprune.report.tables import page_table


@pytest.mark.parametrize(
    ("columns", "texts", "headings"),
    [
        (
            {"crps_change": 0.0612, "crps_low": 0.05, "crps_high": 0.5},
            ["+6.12 %", "+5.00 to +50.0 %"],
            ("change of CRPS", "95 % interval"),
        ),
        (
            {"median_mase_change": -0.1, "median_mase_low": -0.2, "median_mase_high": 0.0},
            ["-10.0 %", "-20.0 to +0.00 %"],
            ("median change of MASE", "95 % interval"),
        ),
        (
            {"difference": 0.02, "low": 0.01, "high": math.inf},
            ["+2.00 %", "+1.00 to +inf %"],
            ("relative difference", "95 % interval"),
        ),
        # no change of a metric: value and limits are plain numbers, both
        (
            {"parroting": -0.1, "parroting_low": -0.15, "parroting_high": 0.05},
            ["-0.1", "-0.15 to 0.05"],
            ("parroting", "95 % interval"),
        ),
        (
            {"time_ratio": 0.7, "time_ratio_low": 0.69, "time_ratio_high": 0.72},
            ["0.700", "0.69 to 0.72"],
            ("time / original's", "95 % interval"),
        ),
        (  # of a trait, in its own units
            {"change": -0.054, "low": -0.109, "high": -0.0226},
            ["-0.054", "-0.109 to -0.0226"],
            ("change", "95 % interval"),
        ),
        (
            {"rho": 0.5, "low": math.nan, "high": math.nan},
            ["0.5", "n/a"],
            ("rho", "95 % interval"),
        ),
        (
            {"MASE_ratio": 0.81234, "layer": 3, "low": 1},
            ["0.812", "3", "1"],
            ("MASE / Seasonal Naive", "layer", "low"),
        ),
    ],
)
def test_an_interval_reads_in_the_unit_of_its_value(
    columns: dict[str, float], texts: list[str], headings: tuple[str, ...]
) -> None:
    table = page_table("t", pd.DataFrame([columns]))
    assert [cell.text for cell in table.rows[0]] == texts
    assert table.columns == headings
    exact = [number for cell in table.rows[0] for number in (cell.value, cell.high) if number is not None]
    assert sorted(exact) == sorted(repr(float(number)) for number in columns.values())
