"""Forwards of modules while a record is reused: they return the record, or resume from it.

Each of them computes as usual if the stack got other inputs than in the clean pass, or if the record was
not kept or was changed in place.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from tsprune.models.substitution import Forward
from tsprune.replay.recorded_calls import Call, Record
from tsprune.replay.values import detached_copy, given, leaves, same, states_among, substituted


class Gate:
    """Decides, at the first unit of a stack, whether this call of the stack may be replayed."""

    def __init__(self, calls: list[Call]) -> None:
        self.calls = calls
        self.index = -1
        self.open = False

    def lead(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Opens for the next call if its inputs are the recorded ones, and closes otherwise."""
        self.index += 1
        record = self.calls[self.index].usable if self.index < len(self.calls) else None
        self.open = record is not None and same((args, kwargs), record.inputs)

    def record(self, calls: list[Call]) -> Record | None:
        """The record of the current call among `calls` of another unit of the stack."""
        return calls[self.index].usable if self.open else None


def replaying(original: Forward, calls: list[Call], gate: Gate) -> Forward:
    """A forward that returns the record while `gate` is open, and else computes.

    The inputs of the unit open or close the gate if the gate was made of its calls.
    """

    def forward(*args: Any, **kwargs: Any) -> Any:
        if calls is gate.calls:
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
        vars(state).update(vars(detached_copy(left)))
    return states


def leading(original: Forward, gate: Gate) -> Forward:
    """The forward of a stack's first block if it is computed, but decides for its sublayers."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        gate.lead(args, kwargs)
        return original(*args, **kwargs)

    return forward


def resuming(
    original: Forward, calls: list[Call], projections: list[Call], output: nn.Module, gate: Gate
) -> Forward:
    """The forward of an attention sublayer that computes only its output projection, with its hooks."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        record, projection = gate.record(calls), gate.record(projections)
        if record is None or projection is None or projection.inputs is None:
            return original(*args, **kwargs)
        if not any(tensor is projection.output for tensor in leaves(record.output, Tensor)):
            return original(*args, **kwargs)  # the attention changes its projection before returning it
        recorded = given(record.output, _restored_states(record, args, kwargs))
        return substituted(recorded, projection.output, output(*projection.inputs[0]))

    return forward


def projecting(original: Forward, calls: Mapping[str, list[Call]], path: str) -> Forward:
    """The forward of a cross-attention projection, which reuses the record of the same encoder output.

    Records are looked up by `path` only when needed, because tiling them takes time.
    """

    def forward(hidden: Tensor) -> Any:
        for matches in (operator.is_, same):  # comparing bits is slow, so identity is tried first
            for record in filter(None, (call.usable for call in calls[path])):
                assert record.inputs is not None
                if matches(hidden, record.inputs[0][0]):
                    return record.output
        return original(hidden)

    return forward
