"""Find, explain and remove redundancy in pretrained time series foundation models."""

from tsprune import data, explain
from tsprune.ablation import Ablation, ablate
from tsprune.anatomy import Anatomy, Component
from tsprune.capture import Reference, reference
from tsprune.errors import TspruneError
from tsprune.evaluation import evaluate
from tsprune.models import Forecast, Forecaster, load
from tsprune.pruning import heads_at
from tsprune.scores import rank
from tsprune.study import study
from tsprune.sweep import sweep

__all__ = [
    "Ablation",
    "Anatomy",
    "Component",
    "Forecast",
    "Forecaster",
    "Reference",
    "TspruneError",
    "ablate",
    "data",
    "evaluate",
    "explain",
    "heads_at",
    "load",
    "rank",
    "reference",
    "study",
    "sweep",
]
