"""Many ablations of one model on one suite."""

from tsprune.sweeps.cell_plan import SweepPlan, make_plan
from tsprune.sweeps.cost_estimate import Estimate, estimate
from tsprune.sweeps.engine import BATCH_SIZE, run
from tsprune.sweeps.single_components import effects_frame, sweep, unit_ablations
from tsprune.sweeps.store import Store
from tsprune.sweeps.sweep_result import CLEAN, Change, SweepResult

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
