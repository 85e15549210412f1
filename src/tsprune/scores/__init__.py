"""Importance of components: `rank` by one score, `score_table` by many, `screen` from gradients.

`SCORES` says what scores there are; `agreement` which of them tell the exact effect of an ablation.
"""

from tsprune.scores.agreement import agreement, agreement_table
from tsprune.scores.catalogue import SCORES, redundant_first, score_named
from tsprune.scores.ranking import available, peer_columns, rank, score_table
from tsprune.scores.registry import ORDERS, Order, Score
from tsprune.scores.screening import screen
from tsprune.scores.stable_rank import stable_ranks

__all__ = [
    "ORDERS",
    "SCORES",
    "Order",
    "Score",
    "agreement",
    "agreement_table",
    "available",
    "peer_columns",
    "rank",
    "redundant_first",
    "score_named",
    "score_table",
    "screen",
    "stable_ranks",
]
