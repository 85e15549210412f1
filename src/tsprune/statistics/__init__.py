"""Estimates with intervals and p-values, correlation, correction for many tests, verdicts."""

from tsprune.statistics.estimate import (
    LEVEL,
    UNKNOWN,
    Estimate,
    Estimates,
    correlation,
    correlation_row,
    spearman,
)
from tsprune.statistics.sample import Sample, pseudo_values, unit_means
from tsprune.statistics.verdicts import SEEDS, Judged, Known, Side, Test, Verdict, holm, judged

__all__ = [
    "LEVEL", "SEEDS", "UNKNOWN", "Estimate", "Estimates", "Judged", "Known", "Sample", "Side", "Test",
    "Verdict", "correlation", "correlation_row", "holm", "judged", "pseudo_values", "spearman",
    "unit_means",
]  # fmt: skip
