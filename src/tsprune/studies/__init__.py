"""Studies: every question of the paper, asked of one or more checkpoints."""

from tsprune.studies.run_study import DEFAULT_MODELS, study
from tsprune.studies.study_result import Claim, Example, ModelStudy, Study
from tsprune.studies.study_settings import STUDY_SAMPLES, STUDY_STEPWISE_SAMPLES

__all__ = [
    "DEFAULT_MODELS", "STUDY_SAMPLES", "STUDY_STEPWISE_SAMPLES", "Claim", "Example", "ModelStudy",
    "Study", "study",
]  # fmt: skip
