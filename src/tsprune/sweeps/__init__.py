"""Many ablations of one model on one suite."""

from tsprune.sweeps.cell_plan import SweepPlan, make_plan
from tsprune.sweeps.cost_estimate import SweepCost, estimate
from tsprune.sweeps.engine import run
from tsprune.sweeps.single_components import effects_frame, single_ablations, sweep
from tsprune.sweeps.store import Store
from tsprune.sweeps.sweep_result import CLEAN, Change, SweepResult

__all__ = [
    "CLEAN",
    "Change",
    "Store",
    "SweepCost",
    "SweepPlan",
    "SweepResult",
    "effects_frame",
    "estimate",
    "make_plan",
    "run",
    "single_ablations",
    "sweep",
]
