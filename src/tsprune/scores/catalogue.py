"""All scores: those of this package, and those that installed packages add."""

from __future__ import annotations

from tsprune.plugins import Registry
from tsprune.scores.activations import ACTIVATION_SCORES
from tsprune.scores.effects import EFFECT_SCORES
from tsprune.scores.score import Order, Score
from tsprune.scores.screening import GRADIENT_SCORES
from tsprune.scores.weight_scores import WEIGHT_SCORES

SCORES: Registry[Score] = Registry(
    "tsprune.scores",
    Score,
    (*WEIGHT_SCORES, *ACTIVATION_SCORES, *GRADIENT_SCORES, *EFFECT_SCORES),
    noun="score",
)


def redundant_first(name: str) -> Order:
    """The order of removal that starts with the components the score calls redundant."""
    return SCORES.named(name).redundant
