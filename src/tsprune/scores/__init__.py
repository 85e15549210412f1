"""Importance of components: `rank` without data, `screen` from gradients on windows."""

from tsprune.scores.ranking import rank
from tsprune.scores.screening import screen
from tsprune.scores.stable_rank import stable_ranks

__all__ = ["rank", "screen", "stable_ranks"]
