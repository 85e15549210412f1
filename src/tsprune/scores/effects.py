"""The exact effect of zeroing each component alone, measured on windows."""

from __future__ import annotations

from collections.abc import Mapping

from tsprune.anatomy import KINDS
from tsprune.hooks.ablation import Ablation
from tsprune.scores.score import Score, ScoringTask, Values
from tsprune.sweeps import effects_frame, run


def measure_effects(task: ScoringTask) -> Mapping[str, Values]:
    """`EFFECT_SCORES` from one sweep; a component whose ablation failed has no score."""
    names = [score.name for score in EFFECT_SCORES]
    ablations = {component: Ablation((component,)) for component in task.scored_by(*names)}
    result = run(
        task.model, task.windows, list(ablations.values()), stage="exact effects", **task.options.keywords()
    )
    frame = effects_frame(result, ablations)
    return {name: dict(zip(ablations, frame[name].tolist(), strict=True)) for name in names}


def _score(name: str, about: str) -> Score:
    return Score(name, KINDS, "low-to-high", "windows", about, measure_effects)


EFFECT_SCORES = (
    _score("mase_change", "exact: relative change of MASE when the component alone is zeroed"),
    _score("crps_change", "exact: relative change of CRPS when the component alone is zeroed"),
    _score("spearman_distance", "exact: Spearman distance of the median forecasts with and without it"),
)
