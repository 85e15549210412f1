"""The exact effect of zeroing each component alone, measured on windows."""

from __future__ import annotations

from collections.abc import Mapping

from tsprune.anatomy import KINDS
from tsprune.hooks.ablation import Ablation
from tsprune.scores.registry import Score, Task, Values
from tsprune.sweeps import effects_frame, run

EFFECTS = ("mase_change", "crps_change", "spearman_distance")


def effect_scores(task: Task) -> Mapping[str, Values]:
    """Scores of `FAMILY`, from one sweep; a component whose ablation failed has none."""
    settings = task.settings
    ablations = {component: Ablation((component,)) for component in task.of(*EFFECTS)}
    result = run(
        task.model,
        task.windows,
        list(ablations.values()),
        batch_size=settings.batch_size,
        prepared=settings.prepared,
        progress=settings.progress,
        store=settings.store,
    )
    frame = effects_frame(result, ablations)
    return {name: dict(zip(ablations, frame[name].tolist(), strict=True)) for name in EFFECTS}


def _effect(name: str, about: str) -> Score:
    return Score(name, KINDS, "low-to-high", "windows", about, effect_scores)


FAMILY = (
    _effect("mase_change", "exact: relative change of MASE when the component alone is zeroed"),
    _effect("crps_change", "exact: relative change of CRPS when the component alone is zeroed"),
    _effect("spearman_distance", "exact: Spearman distance of the median forecast to the one without it"),
)
