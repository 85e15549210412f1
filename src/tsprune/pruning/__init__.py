"""From a score to what is removed."""

from tsprune.pruning.heads_at import heads_at

__all__ = ["heads_at"]
