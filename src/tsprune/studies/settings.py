"""What is the same for all models of a study, and how it says where it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

from tsprune.data.split import CALIBRATION_FRACTION
from tsprune.data.suite import Suite
from tsprune.models.forecaster import Forecaster, drawing
from tsprune.pruning.heads_at import calibration_masks
from tsprune.run_options import MEMORY
from tsprune.sweeps.sweep_result import Masks

# upstream draws 20 to 256 for a final score; a study forecasts every window hundreds of times, and its
# comparisons are paired: the same draws with and without an ablation (`tsprune.models.draws`)
STUDY_SAMPLES = 8
# of models that decode a path value by value, where paths are most of what a forecast costs; odd, so that
# the median is a path's value
STEPWISE_SAMPLES = 3

Stage = Literal["scoring", "ablating", "explaining", "done"]
# (model, stage, forecasts of a batch done in that stage, of all); 0 of 0 where they are not counted
Progress = Callable[[str, Stage, int, int], None]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What every model of a study is studied on, and how.

    calibration : windows that heads, MLPs and scores are chosen on
    memory : bytes that the records of one model's clean pass may hold
    """

    suite: Suite
    calibration: Masks
    percent: float
    seed: int
    batch_size: int
    explain: bool
    memory: int = MEMORY


def settings_of(suite: Suite, *, percent: float, seed: int, batch_size: int, explain: bool) -> Settings:
    """Settings with what follows from the suite alone."""
    masks = calibration_masks(suite, fraction=CALIBRATION_FRACTION, seed=seed)
    return Settings(suite, masks, percent, seed, batch_size, explain)


def draw(model: Forecaster, samples: int | None) -> Forecaster:
    """`model` set to draw `samples` paths a window, or as many as a study does; if it samples."""
    return drawing(model, samples, usual=STUDY_SAMPLES, of_tokens=STEPWISE_SAMPLES)
