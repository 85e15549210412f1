"""Roles follow from numbers: a trait is named only if its interval is clear of its null."""

from __future__ import annotations

import pytest

from tsprune.report.roles import facts, role


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"sharpness_low": 0.6, "sharpness_high": 0.7}, "sharp."),
        ({"sharpness_low": 0.01, "sharpness_high": 0.05}, "diffuse."),
        ({"sharpness_low": 0.2, "sharpness_high": 0.9}, "no trait"),
        ({"period_share_low": 0.3, "period_share_uniform_high": 0.2}, "attends at the season."),
        ({"period_share_low": 0.1, "period_share_uniform_high": 0.2}, "no trait"),
        ({"parroting_low": -0.3, "parroting_high": -0.1}, "forecasts copy less without it."),
        ({"parroting_low": -0.3, "parroting_high": 0.1}, "no trait"),
        (
            {"followed_score": 0.2, "followed_sure": 1.0},
            "induction: attends to the successors of repeated values.",
        ),
        ({"followed_score": 0.2, "followed_sure": 0.8}, "no trait"),
        ({"diagonal_low": 0.8, "diagonal_uniform_high": 0.1}, "attends near its own position."),
        ({"untimed_low": 0.9}, "attends to a position without a time."),
        ({"mase_low": 0.1, "mase_high": 0.2, "sharpness_low": 0.9}, "sharp; errors grow without it."),
        ({}, "no trait"),
    ],
)
def test_roles(row: dict[str, float], words: str) -> None:
    assert role(row).startswith(words)
    assert role(row).endswith(".")


def test_facts_speak_of_what_was_measured_only() -> None:
    row = {"stable_rank": 2.0, "stable_rank_effective": 1.5, "sharpness": float("nan")}
    assert facts(row) == (
        "Role: no trait differs from its null.",
        "Its queries have no choice of keys over time: attention statistics are undefined.",
        "Stable rank 2.00 (effective 1.50).",
    )
    everything = row | {
        "sharpness": 0.5,
        "sharpness_low": 0.4,
        "sharpness_high": 0.6,
        "effective_keys": 3.25,
        "diagonal": 0.1234,
        "diagonal_uniform": 0.05,
        "period_share": 0.4,
        "period_share_uniform": 0.111,
        "untimed": 0.0,
        "lag": 41.0,
        "followed_score": 0.02,
        "followed_sure": 0.5,
        "mase": 0.1,
        "mase_low": 0.05,
        "mase_high": 0.2,
        "size": 0.0123,
    }
    text = " ".join(facts(everything))
    for part in (
        "keys: 3.2",
        "0.5 [0.4, 0.6]",
        "12 % within one position of the query's own time (an even head: 5 %)",
        "40 % at multiples",
        "mean lag 41 steps",
        "+2 percentage points",
        "50 % of the lengths",
        "scaled error +0.1 [+0.05, +0.2], parroting n/a",
        "contribution 1.2 % of the forecast",
    ):
        assert part in text
