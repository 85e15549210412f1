"""Recorded calls, and the ledger that keeps their memory under a limit.

Records that do not fit are left out, and their calls are computed when needed. Records of lower worth make
room for records of higher worth. Stack entries are worth most, because their inputs decide whether any
record of the stack may be used. Second calls of a module (later decoding steps, whose inputs differ under
most ablations) are worth less than any first call.

Small batches spend more time in Python than in arithmetic. Ablations whose lowest component is in the same
sublayer share everything upstream of it, so one batch may hold the windows once per ablation, and `Tiled`
repeats the rows of the records. Kernels are chosen by shape, so the bits of a row may depend on the size of
the batch: `tsprune.sweeps.variants` checks them.
"""

from __future__ import annotations

import dataclasses
import enum
import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from tsprune.replay.values import (
    Inputs,
    Snapshot,
    detached_copy,
    is_state,
    leaves,
    mapped,
    storages,
    version,
)

# most ablations per batch, and most bytes of one hidden state of all of them: a larger batch gains nothing
# from company, and leaves a CPU's cache. Accelerators need larger batches to be busy
MOST = 8
_HIDDEN_BYTES = 2**20
_HIDDEN_BYTES_ACCELERATED = 2**28


ANY_STEPS = -1  # of folded tensors, whose steps differ from call to call


class Worth(enum.IntEnum):
    """Computation that a record saves per byte, in ascending order."""

    SUBLAYER = 0
    BLOCK = 1
    EMBEDDING = 2
    CROSS = 3
    STACK = 4
    ENTRY = 5


@dataclasses.dataclass
class CallRecord:
    """The result of one call.

    inputs : kept where they are compared, or where a sublayer is resumed from them
    states : arguments as the call left them
    snapshot : copies states, when they are given back
    """

    output: Any
    inputs: Inputs | None
    states: list[Any]
    snapshot: Snapshot = detached_copy

    def __post_init__(self) -> None:
        tensors = leaves((self.output, self.inputs, self.states), Tensor)
        self._versions = [(tensor, version(tensor)) for tensor in tensors]

    @property
    def unchanged(self) -> bool:
        """Whether no tensor was changed in place since the call. A changed record is useless."""
        return all(version(tensor) == then for tensor, then in self._versions)

    @property
    def storages(self) -> dict[int, int]:
        """Address -> bytes of the memory that the record holds."""
        return storages((self.output, self.inputs, self.states))


@dataclasses.dataclass
class Call:
    """One call of one unit in the clean pass; `record` is None if it was not kept or was evicted."""

    record: CallRecord | None = None

    @property
    def usable(self) -> CallRecord | None:
        """The record, or None if it is missing or was changed."""
        return self.record if self.record is not None and self.record.unchanged else None


def bytes_of(calls: Iterable[Call]) -> int:
    """Memory that the records of `calls` hold; storages shared between records count once."""
    held: dict[int, int] = {}
    for call in calls:
        if call.record is not None:
            held |= call.record.storages
    return sum(held.values())


class Ledger:
    """Memory of the records of one clean pass; storages shared between records count once."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._sizes: dict[int, int] = {}
        self._holders: Counter[int] = Counter()
        self._cheapest: list[tuple[tuple[bool, Worth], int, Call]] = []
        self._entered = 0

    def room(self, nbytes: int, worth: Worth, *, first: bool = True) -> bool:
        """Whether `nbytes` more fit, once records of lower worth are evicted (which this does)."""
        if nbytes > self.limit:
            return False
        while self.used + nbytes > self.limit:
            if not self._cheapest or self._cheapest[0][0] >= (first, worth):
                return False
            evicted = heapq.heappop(self._cheapest)[-1]
            assert evicted.record is not None
            for place in evicted.record.storages:
                self._holders[place] -= 1
                if not self._holders[place]:
                    self.used -= self._sizes.pop(place)
            evicted.record = None
        return True

    def enter(self, call: Call, record: CallRecord, worth: Worth, *, first: bool = True) -> bool:
        """Keeps `record` as that of `call` if its storages that no other record holds fit."""
        held = record.storages
        # an eviction may free a storage that this record needs: count again until nothing changes
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


class Tiled(dict[str, list[Call]]):
    """Recorded calls by path with every row tiled `times` times, made when they are looked up.

    rows : of the clean batch; all ablations share tensors with another number of rows
    across : as of `Units`
    """

    def __init__(
        self, calls: Mapping[str, list[Call]], rows: int, times: int, across: Mapping[str, int]
    ) -> None:
        super().__init__()
        self._calls, self._rows, self._times, self._across = calls, rows, times, across
        self._tensors: dict[int, tuple[Tensor, Tensor]] = {}  # the first keeps its id from being reused

    def __missing__(self, path: str) -> list[Call]:
        self[path] = [Call() for _ in self._calls[path]]
        for tiled, record in zip(self[path], (call.usable for call in self._calls[path]), strict=True):
            if record is not None:
                parts = (record.output, record.inputs, record.states)
                change = partial(self._tensor, across=self._across.get(path, 0))
                output, inputs, states = (mapped(part, change) for part in parts)
                tiled.record = CallRecord(output, inputs, states, record.snapshot)
        return self[path]

    def _tensor(self, one: Tensor, across: int) -> Tensor:
        """`one` with its rows tiled, the same tensor at every call."""
        rows = one.shape[0] if one.dim() else 0
        groups = rows // across if across and rows % across == 0 else 0
        folded = across == ANY_STEPS and rows % self._rows == 0
        if rows != self._rows and not folded and not (groups > 0 and self._rows % groups == 0):
            return one
        if id(one) not in self._tensors:
            self._tensors[id(one)] = one, one.repeat(self._times, *[1] * (one.dim() - 1))
        return self._tensors[id(one)][1]


def joint_size(stack: Call, entry: Call) -> tuple[int, int]:
    """(ablations worth computing in one batch, rows of the clean batch); (1, 0) if unknown.

    stack, entry : a recorded call of a stack's module, and of its first block
    """
    of_stack, of_entry = stack.usable, entry.usable
    if of_stack is None or of_entry is None or _holds_state(of_stack.inputs):
        return 1, 0
    whole, hidden = (next(leaves(one.inputs, Tensor), None) for one in (of_stack, of_entry))
    if hidden is None or hidden.dim() == 0 or hidden.shape[0] < 2:
        return 1, 0  # a single row looks like a tensor that all rows share
    if whole is None or whole.shape[:1] != hidden.shape[:1]:
        return 1, 0  # rows of the blocks are not the rows of what is outside
    most = _HIDDEN_BYTES if hidden.device.type == "cpu" else _HIDDEN_BYTES_ACCELERATED
    return max(1, min(MOST, most // max(1, hidden.nbytes))), int(hidden.shape[0])


def _holds_state(value: Any) -> bool:
    """Whether inputs hold an object that the call may change in place, such as a key-value cache."""
    if isinstance(value, dict):
        return any(map(_holds_state, value.values()))
    if isinstance(value, tuple | list):
        return any(map(_holds_state, value))
    return is_state(value)
