"""Records with every row repeated: several ablations in one batch.

A small batch spends more time in Python than in arithmetic. Ablations whose lowest component is in the same
sublayer share everything upstream of it, so one batch can hold the windows once per ablation, and
`Replay.reuse` tiles the clean records accordingly. Kernels are chosen by shape, so the bits of a row may
depend on the size of the batch: `tsprune.sweeps.variants` checks them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tsprune.replay.recorded_calls import Call, Record
from tsprune.replay.values import is_state, leaves, mapped

# most ablations per batch, and most bytes of one hidden state of all of them: a larger batch gains nothing
# from company, and leaves the processor's cache
MOST = 8
_HIDDEN_BYTES = 2**20


class Tiled(dict[str, list[Call]]):
    """Recorded calls by path with every row tiled `times` times, made when they are looked up.

    rows : of the clean batch; all ablations share tensors with another number of rows
    """

    def __init__(self, calls: Mapping[str, list[Call]], rows: int, times: int) -> None:
        super().__init__()
        self._calls, self._rows, self._times = calls, rows, times
        self._tensors: dict[int, tuple[Tensor, Tensor]] = {}  # the first keeps its id from being reused

    def __missing__(self, path: str) -> list[Call]:
        self[path] = [Call(self._record(call.usable)) for call in self._calls[path]]
        return self[path]

    def _record(self, record: Record | None) -> Record | None:
        if record is None:
            return None
        return Record(*(mapped(x, self._tensor) for x in (record.output, record.inputs, record.states)))

    def _tensor(self, one: Tensor) -> Tensor:
        """`one` with its rows tiled, the same tensor at every call."""
        if one.dim() == 0 or one.shape[0] != self._rows:
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
    hidden = next(leaves(of_entry.inputs, Tensor), None)
    if hidden is None or hidden.dim() == 0 or hidden.shape[0] < 2:
        return 1, 0  # a single row looks like a tensor that all rows share
    return max(1, min(MOST, _HIDDEN_BYTES // max(1, hidden.nbytes))), int(hidden.shape[0])


def _holds_state(value: Any) -> bool:
    """Whether inputs hold an object that the call may change in place, such as a key-value cache."""
    if isinstance(value, dict):
        return any(map(_holds_state, value.values()))
    if isinstance(value, tuple | list):
        return any(map(_holds_state, value))
    return is_state(value)
