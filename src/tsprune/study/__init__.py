"""The main job: every question of the paper, asked of the checkpoints it is given."""

from tsprune.study.result import Claim, Example, ModelStudy, Study
from tsprune.study.run import DEFAULT_MODELS, study
from tsprune.study.settings import STEPWISE_SAMPLES, STUDY_SAMPLES, Progress

__all__ = [
    "DEFAULT_MODELS",
    "STEPWISE_SAMPLES",
    "STUDY_SAMPLES",
    "Claim",
    "Example",
    "ModelStudy",
    "Progress",
    "Study",
    "study",
]
