"""The table of a frontier: which points nothing beats, and what to deploy for a loss."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.points import frontier_of, point
from tsprune.frontiers.frontier_table import LOSSES, SAME_SCORE, unbeaten


def test_unbeaten_is_the_definition() -> None:
    rng = np.random.default_rng(0)
    time, loss = rng.integers(0, 6, size=(2, 40)).tolist()
    found = unbeaten(time, loss)
    for place, mine in enumerate(found):
        better = any(
            t <= time[place] and x <= loss[place] and (t, x) != (time[place], loss[place])
            for t, x in zip(time, loss, strict=True)
        )
        assert mine is not better
    assert unbeaten([1.0], [0.0]) == [True]


def deployed_for(*points: dict[str, Any]) -> dict[float, tuple[str, str]]:
    advice = frontier_of(*points).advice
    return {row.loss: (row.deploy, row.undecided) for row in advice.itertuples()}


def test_the_fastest_whose_upper_end_is_within_the_loss() -> None:
    found = deployed_for(
        point("original", "torch", 1.0, 0.0),
        point("original", "onnx-fp32", 0.2, 1e-7, SAME_SCORE / 2),
        point("original", "onnx-int8", 0.15, 0.004, 0.012),
        point("pruned 30 %", "onnx-int8", 0.1, 0.03, 0.049),
        point("pruned 50 %", "onnx-int8", 0.05, 0.2, 0.4),
    )
    assert [found[loss][0] for loss in LOSSES] == [
        "original by onnx-fp32",  # rounding is no loss
        "original by onnx-fp32",
        "original by onnx-int8",
        "pruned 30 % by onnx-int8",
    ]
    # a loss of 0.4 % is within 1 %, but its interval is not; 3 % is not within 2 %
    assert [found[loss][1] for loss in LOSSES] == ["", "original by onnx-int8", "", ""]


def test_a_point_without_an_interval_decides_nothing() -> None:
    found = deployed_for(point("original", "torch", 1.0, 0.0), point("sibling", "torch", 0.5, -0.1, math.nan))
    assert set(found.values()) == {("original by torch", "sibling by torch")}


def test_sentences_name_losses_with_one_answer_together() -> None:
    found = frontier_of(
        point("original", "torch", 1.0, 0.0),
        point("original", "onnx-int8", 0.5, 0.004, 0.012),
        point("original", "torch", 1.0, 0.0, batch=64),
    )
    assert found.headline == (
        "Batch 1, for a loss of at most 0 %: original by torch (1.00 times as fast [0.91, 1.11]); 1 %: "
        "original by torch (1.00 times as fast [0.91, 1.11]), original by onnx-int8 is faster, but its "
        "interval reaches a larger loss; 2 or 5 %: original by onnx-int8 (2.00 times as fast [1.82, 2.22]). "
        "Batch 64, for a loss of at most 0, 1, 2 or 5 %: original by torch (1.00 times as fast [0.91, 1.11])."
    )


@pytest.mark.parametrize("change", [SAME_SCORE / 2, -SAME_SCORE / 2])
def test_scores_that_differ_by_rounding_are_equal(change: float) -> None:
    frame = frontier_of(
        point("original", "torch", 1.0, 0.0), point("original", "onnx-fp32", 0.2, change)
    ).frame
    assert frame["unbeaten"].tolist() == [False, True]


def test_batches_are_compared_by_themselves() -> None:
    frame = frontier_of(
        point("original", "torch", 1.0, 0.0), point("original", "onnx-fp32", 0.2, 0.0, batch=64)
    ).frame
    assert frame["unbeaten"].tolist() == [True, True]
