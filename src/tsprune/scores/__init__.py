"""Importance of components: `rank` by one score, `score_table` by many, `screen` by gradients.

`SCORES` holds all scores; `agreement` measures which of them predict the exact effect of an ablation.
"""

from tsprune.scores.agreement import agreement, agreement_table
from tsprune.scores.catalogue import SCORES, redundant_first
from tsprune.scores.ranking import available_scores, peer_columns, rank, score_table
from tsprune.scores.score import ORDERS, Order, Score, ScoringTask, Values
from tsprune.scores.screening import screen
from tsprune.scores.stable_rank import stable_ranks

__all__ = [
    "ORDERS",
    "SCORES",
    "Order",
    "Score",
    "ScoringTask",
    "Values",
    "agreement",
    "agreement_table",
    "available_scores",
    "peer_columns",
    "rank",
    "redundant_first",
    "score_table",
    "screen",
    "stable_ranks",
]
