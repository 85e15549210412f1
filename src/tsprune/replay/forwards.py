"""The forwards that modules have while a record is reused: they return it, or resume from it.

Every one of them computes as ever where it must: if the stack was called with other inputs than in
the clean pass, or if the record was not kept, or was changed in place since.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from tsprune.models.substitution import Forward
from tsprune.replay.recorded_calls import Call, Record
from tsprune.replay.values import copied, given, leaves, same, states_among, substituted


class Gate:
    """Decides, at the first unit of a stack, whether this call of the stack may be replayed."""

    def __init__(self, calls: list[Call]) -> None:
        self._calls = calls
        self.index = -1
        self.open = False

    def lead(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.index += 1
        record = self._calls[self.index].usable if self.index < len(self._calls) else None
        self.open = record is not None and same((args, kwargs), record.inputs)

    def record(self, calls: list[Call]) -> Record | None:
        """That of the present call among `calls` of another unit of the stack."""
        return calls[self.index].usable if self.open else None


def replayed(original: Forward, calls: list[Call], gate: Gate, *, leads: bool) -> Forward:
    """A forward that returns what was recorded, while `gate` is open; else `original`'s.

    leads : this is the unit whose inputs open or close the gate
    """

    def forward(*args: Any, **kwargs: Any) -> Any:
        if leads:
            gate.lead(args, kwargs)
        record = gate.record(calls)
        if record is None:
            return original(*args, **kwargs)
        return given(record.output, _restored_states(record, args, kwargs))

    return forward


def _restored_states(record: Record, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The states among the arguments, as the recorded call left them."""
    states = states_among(args, kwargs)
    for state, left in zip(states, record.states, strict=True):
        vars(state).update(vars(copied(left)))
    return states


def leading(original: Forward, gate: Gate) -> Forward:
    """A stack's first block, computed, that decides for the sublayers inside the stack."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        gate.lead(args, kwargs)
        return original(*args, **kwargs)

    return forward


def resumed(
    original: Forward, calls: list[Call], projections: list[Call], output: nn.Module, gate: Gate
) -> Forward:
    """An attention sublayer from its output projection on, whose hooks run."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        record, projection = gate.record(calls), gate.record(projections)
        if record is None or projection is None or projection.inputs is None:
            return original(*args, **kwargs)
        if not any(tensor is projection.output for tensor in leaves(record.output, Tensor)):
            return original(*args, **kwargs)  # what the attention returns is made from its projection
        recorded = given(record.output, _restored_states(record, args, kwargs))
        return substituted(recorded, projection.output, output(*projection.inputs[0]))

    return forward


def projected(original: Forward, calls: Mapping[str, list[Call]], path: str) -> Forward:
    """Keys or values made at `path` from an encoder's output: if it is a recorded one, theirs.

    Records are looked up when they are asked for: to repeat them (`tsprune.replay.tiled_records`) takes time.
    """

    def forward(hidden: Tensor) -> Any:
        for matches in (operator.is_, same):  # equal copies are found, but compared only if need be
            for record in filter(None, (call.usable for call in calls[path])):
                assert record.inputs is not None
                if matches(hidden, record.inputs[0][0]):
                    return record.output
        return original(hidden)

    return forward


def remembered(original: Forward, calls: list[Call]) -> Forward:
    """A module that runs before any block: for the inputs it had at this call, what it returned."""
    upcoming = iter(calls)

    def forward(*args: Any, **kwargs: Any) -> Any:
        record = next(upcoming, Call()).usable
        if record is None or not same((args, kwargs), record.inputs):
            return original(*args, **kwargs)
        return given(record.output, [])

    return forward
