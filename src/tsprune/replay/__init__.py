"""Replay: ablations share what lies upstream of them, bit for bit, within a limit of memory."""

from tsprune.replay.memory_budget import in_parts, record_bytes
from tsprune.replay.replay import Place, Replay
from tsprune.replay.tiled_records import MOST

__all__ = ["MOST", "Place", "Replay", "in_parts", "record_bytes"]
