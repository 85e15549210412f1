"""Many ablations of one model on one suite."""

from tsprune.sweep.engine import BATCH_SIZE, CLEAN, Change, SweepResult, run
from tsprune.sweep.units import effects_frame, sweep

__all__ = ["BATCH_SIZE", "CLEAN", "Change", "SweepResult", "effects_frame", "run", "sweep"]
