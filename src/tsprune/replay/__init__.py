"""Replay: ablations share what lies upstream of them, bit for bit, within a limit of memory."""

from tsprune.replay.ahead import MOST, Ahead
from tsprune.replay.batching import in_parts, record_bytes
from tsprune.replay.replay import MEMORY, Place, Replay

__all__ = ["MEMORY", "MOST", "Ahead", "Place", "Replay", "in_parts", "record_bytes"]
