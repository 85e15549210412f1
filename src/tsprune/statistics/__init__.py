"""Everything that decides: estimates with intervals and p-values, correlation, corrections, verdicts."""

from tsprune.statistics.correlation import correlation, correlation_row, spearman
from tsprune.statistics.estimate import LEVEL, UNKNOWN, Estimate, Estimates
from tsprune.statistics.multiple import holm
from tsprune.statistics.sample import Sample, pseudo_values, unit_means
from tsprune.statistics.verdicts import SEEDS, Judged, Known, Side, Test, Verdict, judged

__all__ = [
    "LEVEL",
    "SEEDS",
    "UNKNOWN",
    "Estimate",
    "Estimates",
    "Judged",
    "Known",
    "Sample",
    "Side",
    "Test",
    "Verdict",
    "correlation",
    "correlation_row",
    "holm",
    "judged",
    "pseudo_values",
    "spearman",
    "unit_means",
]
