"""Frontiers of a few points, made by hand."""

from __future__ import annotations

from typing import Any

from tsprune.evaluation import METRICS
from tsprune.frontiers import Frontier
from tsprune.frontiers.frontier_table import marked


def point(
    weights: str, runtime: str, ratio: float, change: float, high: float | None = None, *, batch: int = 1
) -> dict[str, Any]:
    """A row of `FRONTIER`: a time within a tenth, and a change of all metrics up to `high`."""
    changes = {"change": change, "low": change - 0.01, "high": change if high is None else high}
    row: dict[str, Any] = {
        "weights": weights,
        "runtime": runtime,
        "parameters": 100,
        "batch": batch,
        "ms": 10 * ratio,
        "time_ratio": ratio,
        "time_ratio_low": 0.9 * ratio,
        "time_ratio_high": 1.1 * ratio,
        "windows": 7,
    }
    return row | {f"{m.key}_{name}": value for m in METRICS.values() for name, value in changes.items()}


def frontier_of(*points: dict[str, Any]) -> Frontier:
    """The frontier of these rows, by MASE."""
    return Frontier(marked(points, "MASE"), "a<b>", machine="2 cores")
