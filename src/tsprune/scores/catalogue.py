"""Every score there is."""

from __future__ import annotations

from tsprune.errors import TspruneError
from tsprune.scores import activations, effects, gradient_scores, weight_scores
from tsprune.scores.registry import Order, Score

SCORES: dict[str, Score] = {
    score.name: score
    for score in (*weight_scores.FAMILY, *activations.FAMILY, *gradient_scores.FAMILY, *effects.FAMILY)
}


def score_named(name: str) -> Score:
    """The score of this name; TspruneError if there is none."""
    if name not in SCORES:
        raise TspruneError(f"unknown score {name!r}; one of: {', '.join(SCORES)}")
    return SCORES[name]


def redundant_first(name: str) -> Order:
    """The order of removal in which what the score calls redundant goes first."""
    return score_named(name).redundant
