"""The main job: every question of the paper, asked of the checkpoints it is given."""

from tsprune.studies.settings import STEPWISE_SAMPLES, STUDY_SAMPLES, Progress
from tsprune.studies.study import DEFAULT_MODELS, study
from tsprune.studies.study_result import Claim, Example, ModelStudy, Study

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
