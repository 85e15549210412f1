"""Find, explain and remove redundancy in pretrained time series foundation models."""

import os

# read when torch and the hub client load: waiting threads that spin make few cores slow (2 to 40
# times on a busy machine), and nothing here may report to anyone
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from tsprune import data, explain
from tsprune.anatomy import Anatomy, Component
from tsprune.errors import TspruneError
from tsprune.evaluation import evaluate
from tsprune.hooks.ablation import Ablation, ablate
from tsprune.hooks.capture import Reference, reference
from tsprune.models import Forecast, Forecaster, load, load_pipeline
from tsprune.pruning import Plan, heads_at, prune, recover
from tsprune.pruning.imitation import plan_saving
from tsprune.pruning.search import plan
from tsprune.scores import rank
from tsprune.studies import study
from tsprune.sweeps import sweep

__all__ = [
    "Ablation",
    "Anatomy",
    "Component",
    "Forecast",
    "Forecaster",
    "Plan",
    "Reference",
    "TspruneError",
    "ablate",
    "data",
    "evaluate",
    "explain",
    "heads_at",
    "load",
    "load_pipeline",
    "plan",
    "plan_saving",
    "prune",
    "rank",
    "recover",
    "reference",
    "study",
    "sweep",
]
