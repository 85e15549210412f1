"""Importance of components; `rank` is the one entrance."""

from tsprune.scores.ranking import rank
from tsprune.scores.stable_rank import stable_ranks

__all__ = ["rank", "stable_ranks"]
