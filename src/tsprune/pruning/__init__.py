"""Pruning: from a score to a plan, and from a plan to a smaller model."""

from tsprune.pruning.baseline_file import Baseline
from tsprune.pruning.evidence import Comparison, compare, latency_evidence, measured
from tsprune.pruning.heads_at import heads_at
from tsprune.pruning.plan import Plan
from tsprune.pruning.recovery import recover
from tsprune.pruning.surgery import prune
from tsprune.pruning.tradeoff import tradeoff

__all__ = [
    "Baseline", "Comparison", "Plan", "compare", "heads_at", "latency_evidence", "measured", "prune",
    "recover", "tradeoff",
]  # fmt: skip
