"""Replay: ablations share what lies upstream of them, bit for bit, within a limit of memory."""

from tsprune.replay.batching import in_parts, record_bytes
from tsprune.replay.repeated import MOST
from tsprune.replay.replay import MEMORY, Place, Replay

__all__ = ["MEMORY", "MOST", "Place", "Replay", "in_parts", "record_bytes"]
