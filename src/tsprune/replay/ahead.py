"""Stacks run ahead: what they return under several ablations, found in one batch.

A small batch (a decoder of one token, a few short histories) spends more time in Python than in
arithmetic. Ablations whose lowest component is in the same sublayer share everything upstream of it, so
from there on their rows can be computed together: the batch once per ablation, the k-th repetition
under the k-th ablation. `Replay.ahead` does so with the modules that wrap whole stacks, and makes of
what they return one record per ablation.

Whether a row of a larger batch comes out the same to the last bit is up to the kernels, which are chosen
by shape. It is not taken for granted: see `Replay.compared`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tsprune.replay.calls import Call, Record
from tsprune.replay.values import Inputs, is_state, kept, leaves, mapped, same, storages

# ablations that are computed together at most, and bytes of one hidden state of all of them: beyond
# that a batch is as quick alone, and stays in the processor's cache
MOST = 8
HIDDEN_BYTES = 2**20


@dataclasses.dataclass(frozen=True)
class Ahead:
    """What stacks return at their first call under one ablation.

    calls : by path of a stack's module
    shape : of the batches that it was found with; equal shapes are computed by the same kernels
    """

    calls: Mapping[str, Call]
    shape: Hashable


class Repeated(Mapping[str, list[Call]]):
    """Recorded calls as they would be with every row `times` over; of each unit the first call only."""

    def __init__(self, calls: Mapping[str, list[Call]], rows: int, times: int) -> None:
        self._calls, self._rows, self._times = calls, rows, times
        self._made: dict[str, list[Call]] = {}
        self._tensors: dict[int, tuple[Tensor, Tensor]] = {}  # the first keeps its id from being reused

    def __getitem__(self, path: str) -> list[Call]:
        if path not in self._made:
            calls = self._calls[path]
            first = [Call(self._record(call.usable)) for call in calls[:1]]
            self._made[path] = first + [Call() for _ in calls[1:]]
        return self._made[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._calls)

    def __len__(self) -> int:
        return len(self._calls)

    def _record(self, record: Record | None) -> Record | None:
        if record is None or self._times == 1:
            return record
        output, inputs, states = (
            mapped(x, self.tensor) for x in (record.output, record.inputs, record.states)
        )
        return Record(output, inputs, states)

    def tensor(self, one: Tensor) -> Tensor:
        """`one` with its rows repeated, always the same tensor; what has other rows is shared by all."""
        if self._times == 1 or one.dim() == 0 or one.shape[0] != self._rows:
            return one
        if id(one) not in self._tensors:
            self._tensors[id(one)] = one, one.repeat(self._times, *[1] * (one.dim() - 1))
        return self._tensors[id(one)][1]


class Variant:
    """One of the ablations: the records made for it so far, and which tensors differ from the clean ones."""

    def __init__(self) -> None:
        self.calls: dict[str, Call] = {}
        self._changed: dict[int, Tensor] = {}

    def tensor(self, clean: Tensor) -> Tensor:
        """What stands in the place of a tensor of the clean pass."""
        return self._changed.get(id(clean), clean)

    def take(self, path: str, clean: Record, output: Any) -> None:
        """A stack's output under this ablation, in the place of what it returned in the clean pass."""
        inputs = mapped(clean.inputs, self.tensor)
        self.calls[path] = Call(Record(kept(output), inputs, []))
        pairs = zip(leaves(clean.output, Tensor), leaves(output, Tensor), strict=True)
        self._changed |= {id(before): after for before, after in pairs}


def at_once(stack: Sequence[Call], entry: Sequence[Call], nbytes: int, limit: int) -> tuple[int, int]:
    """(how many ablations of a stack to compute together, rows of its clean batch); none if it is not known.

    stack, entry : the recorded calls of its module and of its first block
    nbytes : of what would be repeated, of which there may be `limit`
    """
    of_stack, of_entry = (calls[0].usable if calls else None for calls in (stack, entry))
    if of_stack is None or of_entry is None or _holds_state(of_stack.inputs):
        return 0, 0
    hidden = next(leaves(of_entry.inputs, Tensor), None)
    if hidden is None or hidden.dim() == 0:
        return 0, 0
    rows = int(hidden.shape[0])
    most = min(MOST, HIDDEN_BYTES // max(1, hidden.nbytes), limit // max(1, nbytes))
    # a single row looks like something that all rows share
    return (max(1, most) if rows > 1 else 1), rows


def _holds_state(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_state, value.values()))
    if isinstance(value, tuple | list):
        return any(map(_holds_state, value))
    return is_state(value)


def together(clean: Inputs, variants: Sequence[Variant], repeated: Repeated) -> Inputs:
    """Inputs of a stack for several ablations at once."""

    def tensor(one: Tensor) -> Tensor:
        own = [variant.tensor(one) for variant in variants]
        if all(other is one for other in own):
            return repeated.tensor(one)
        return own[0] if len(own) == 1 else torch.cat(own)

    joined: Inputs = mapped(clean, tensor)
    return joined


def piece(output: Any, place: int, count: int, rows: int) -> Any:
    """What belongs to one of `count` ablations, of `rows` rows each."""

    def tensor(one: Tensor) -> Tensor:
        if count == 1 or one.dim() == 0 or one.shape[0] != count * rows:
            return one
        return one.narrow(0, place * rows, rows)

    return mapped(output, tensor)


def shape_of(inputs: Inputs) -> Hashable:
    """Shapes and types of all tensors of a call."""
    return tuple((tuple(one.shape), one.dtype) for one in leaves(inputs, Tensor))


def bytes_of(records: Sequence[Record]) -> int:
    """Memory behind everything that is recorded, storages shared between records once."""
    return sum(storages([(one.output, one.inputs, one.states) for one in records]).values())


def comparing(original: Callable[..., Any], ahead: Call, verdicts: list[bool]) -> Callable[..., Any]:
    """A forward that computes as ever, and says whether its first call returned what was found ahead."""
    pending = [ahead]

    def forward(*args: Any, **kwargs: Any) -> Any:
        output = original(*args, **kwargs)
        if pending:
            record = pending.pop().usable
            verdicts.append(record is not None and same(kept(output), record.output))
        return output

    return forward
