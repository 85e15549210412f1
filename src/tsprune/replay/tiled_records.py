"""Records with every row repeated: several ablations in one batch.

A small batch (a decoder of one token, a few short histories) spends more time in Python than in
arithmetic. Ablations whose lowest component is in the same sublayer share everything upstream of it, so
from there on they can be computed together: the batch once per ablation, the k-th repetition under the
k-th ablation, with `Replay.reuse` returning the clean pass's records as often.

Whether a row of a larger batch comes out the same to the last bit is up to the kernels, which are chosen
by shape. It is not taken for granted: see `tsprune.sweeps.variants`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from tsprune.replay.recorded_calls import Call, Record
from tsprune.replay.values import Inputs, is_state, leaves, mapped, storages

# ablations that are computed together at most, and bytes of one hidden state of all of them: beyond
# that a batch is as quick alone, and stays in the processor's cache
MOST = 8
HIDDEN_BYTES = 2**20


class Repeated(Mapping[str, list[Call]]):
    """Recorded calls as they would be with every row `times` over.

    rows : of the clean batch; a tensor with another number of them is shared by all
    """

    def __init__(self, calls: Mapping[str, list[Call]], rows: int, times: int) -> None:
        self._calls, self._rows, self._times = calls, rows, times
        self._made: dict[str, list[Call]] = {}
        self._tensors: dict[int, tuple[Tensor, Tensor]] = {}  # the first keeps its id from being reused

    def __getitem__(self, path: str) -> list[Call]:
        if path not in self._made:
            self._made[path] = [Call(self._record(call.usable)) for call in self._calls[path]]
        return self._made[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._calls)

    def __len__(self) -> int:
        return len(self._calls)

    def _record(self, record: Record | None) -> Record | None:
        if record is None:
            return None
        output, inputs, states = (
            mapped(x, self._tensor) for x in (record.output, record.inputs, record.states)
        )
        return Record(output, inputs, states)

    def _tensor(self, one: Tensor) -> Tensor:
        """`one` with its rows repeated, always the same tensor."""
        if one.dim() == 0 or one.shape[0] != self._rows:
            return one
        if id(one) not in self._tensors:
            self._tensors[id(one)] = one, one.repeat(self._times, *[1] * (one.dim() - 1))
        return self._tensors[id(one)][1]


def worthwhile(stack: Call, entry: Call) -> tuple[int, int]:
    """(how many ablations are worth computing together, rows of the batch); (1, 0) if that is not known.

    stack, entry : a recorded call of a stack's module, and of its first block
    """
    of_stack, of_entry = stack.usable, entry.usable
    if of_stack is None or of_entry is None or _holds_state(of_stack.inputs):
        return 1, 0
    hidden = next(leaves(of_entry.inputs, Tensor), None)
    if hidden is None or hidden.dim() == 0 or hidden.shape[0] < 2:
        return 1, 0  # a single row looks like something that all rows share
    return max(1, min(MOST, HIDDEN_BYTES // max(1, hidden.nbytes))), int(hidden.shape[0])


def _holds_state(value: Any) -> bool:
    """Whether a call's inputs hold an object that it may change in place, such as a key-value cache."""
    if isinstance(value, dict):
        return any(map(_holds_state, value.values()))
    if isinstance(value, tuple | list):
        return any(map(_holds_state, value))
    return is_state(value)


def shape_of(inputs: Inputs | None) -> Hashable:
    """Shapes and types of all tensors of a call."""
    return tuple((tuple(one.shape), one.dtype) for one in leaves(inputs, Tensor))


def bytes_of(calls: Sequence[Call]) -> int:
    """Memory behind everything that is recorded, storages shared between records once."""
    records = [call.record for call in calls if call.record is not None]
    return sum(storages([(one.output, one.inputs, one.states) for one in records]).values())
