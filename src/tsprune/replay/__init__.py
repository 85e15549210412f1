"""Replay: ablations share what lies upstream of them, bit for bit, within a limit of memory."""

from tsprune.replay.batching import in_parts, record_bytes
from tsprune.replay.replay import MEMORY, Replay

__all__ = ["MEMORY", "Replay", "in_parts", "record_bytes"]
