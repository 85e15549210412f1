"""The main job: every question of the paper, asked of the checkpoints it is given."""

from tsprune.study.result import Claim, Example, ModelStudy, Study
from tsprune.study.run import DEFAULT_MODELS, STUDY_SAMPLES, study

__all__ = ["DEFAULT_MODELS", "STUDY_SAMPLES", "Claim", "Example", "ModelStudy", "Study", "study"]
