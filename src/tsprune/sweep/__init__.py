"""Many ablations of one model on one suite."""

from tsprune.sweep.engine import BATCH_SIZE, run
from tsprune.sweep.estimate import Estimate, estimate
from tsprune.sweep.plan import SweepPlan, make_plan
from tsprune.sweep.result import CLEAN, Change, SweepResult
from tsprune.sweep.store import Store
from tsprune.sweep.units import effects_frame, sweep, unit_ablations

__all__ = [
    "BATCH_SIZE",
    "CLEAN",
    "Change",
    "Estimate",
    "Store",
    "SweepPlan",
    "SweepResult",
    "effects_frame",
    "estimate",
    "make_plan",
    "run",
    "sweep",
    "unit_ablations",
]
