"""Replay: ablations reuse the computation upstream of them, bit for bit, within a memory limit."""

from tsprune.replay.memory_budget import fitting_windows, record_bytes
from tsprune.replay.recorded_calls import MOST
from tsprune.replay.replay import Place, Replay
from tsprune.replay.values import random_like

__all__ = ["MOST", "Place", "Replay", "fitting_windows", "random_like", "record_bytes"]
