"""Recorded calls, and the ledger that keeps their memory under a limit.

What does not fit is not recorded, and is computed when it is wanted. Where memory is short, calls of
less worth make room for calls of more: the entry of a stack (whose inputs decide whether anything of
the stack may be replayed) is worth most, the insides of a block least, and second calls of a module
(the later steps of a decoding loop, which see other inputs under most ablations) are worth less
than any first call.
"""

from __future__ import annotations

import dataclasses
import enum
import heapq
from collections import Counter
from typing import Any

from torch import Tensor

from tsprune.replay.values import Inputs, leaves, storages, version


class Worth(enum.IntEnum):
    """What a record saves, per byte, in ascending order."""

    SUBLAYER = 0
    BLOCK = 1
    EMBEDDING = 2
    CROSS = 3
    STACK = 4
    ENTRY = 5


@dataclasses.dataclass
class Record:
    """What a call returned.

    inputs : kept where they are compared, or where a sublayer is resumed from them
    states : arguments as the call left them
    """

    output: Any
    inputs: Inputs | None
    states: list[Any]

    def __post_init__(self) -> None:
        tensors = leaves((self.output, self.inputs, self.states), Tensor)
        self._versions = [(tensor, version(tensor)) for tensor in tensors]

    @property
    def unchanged(self) -> bool:
        """Whether no tensor was changed in place since; if one was, the record is worth nothing."""
        return all(version(tensor) == then for tensor, then in self._versions)


@dataclasses.dataclass
class Call:
    """One call of one unit in the clean pass; `record` is None if it was not, or no longer, kept."""

    record: Record | None = None

    @property
    def usable(self) -> Record | None:
        return self.record if self.record is not None and self.record.unchanged else None


class Ledger:
    """Memory of the records of one clean pass: storages shared between records count once."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._sizes: dict[int, int] = {}
        self._holders: Counter[int] = Counter()
        self._cheapest: list[tuple[tuple[bool, Worth], int, Call]] = []
        self._entered = 0

    def room(self, nbytes: int, worth: Worth, *, first: bool = True) -> bool:
        """Whether `nbytes` more fit, after calls of less worth have made room."""
        if nbytes > self.limit:
            return False
        while self.used + nbytes > self.limit:
            if not self._cheapest or self._cheapest[0][0] >= (first, worth):
                return False
            self._evict(heapq.heappop(self._cheapest)[-1])
        return True

    def enter(self, call: Call, record: Record, worth: Worth, *, first: bool = True) -> bool:
        """Keeps `record` as that of `call` if there is room for what others do not hold already."""
        held = storages((record.output, record.inputs, record.states))
        # what an evicted call held may be needed after all: count again until nothing changes
        while True:
            entered = self._entered, len(self._cheapest)
            fresh = sum(size for place, size in held.items() if place not in self._sizes)
            if not self.room(fresh, worth, first=first):
                return False
            if entered == (self._entered, len(self._cheapest)):
                break
        for place, size in held.items():
            if place not in self._sizes:
                self._sizes[place] = size
                self.used += size
            self._holders[place] += 1
        call.record = record
        heapq.heappush(self._cheapest, ((first, worth), self._entered, call))
        self._entered += 1
        return True

    def _evict(self, call: Call) -> None:
        assert call.record is not None
        for place in storages((call.record.output, call.record.inputs, call.record.states)):
            self._holders[place] -= 1
            if not self._holders[place]:
                self.used -= self._sizes.pop(place)
        call.record = None
