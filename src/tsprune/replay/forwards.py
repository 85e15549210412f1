"""Forwards of modules: those of `Recorder` compute and keep the results, all others reuse a record.

A forward that reuses computes as usual if the stack got other inputs than in the clean pass, or if the
record was not kept or was changed in place.
"""

from __future__ import annotations

import operator
import weakref
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from tsprune.models.substitution import Forward
from tsprune.replay.comparisons import Comparisons, alike, same
from tsprune.replay.recorded_calls import Call, CallRecord, Ledger, Worth
from tsprune.replay.recorded_modules import Units
from tsprune.replay.values import (
    Inputs,
    Snapshot,
    given,
    kept,
    leaves,
    states_among,
    substituted,
    version,
)


class Recorder:
    """Makes the recording forwards of one clean pass; `calls` collects the calls by path.

    `embeddings` are modules outside of all blocks that ran before any block did.

    snapshot : copies the states of a call
    """

    def __init__(
        self, modules: Mapping[str, nn.Module], units: Units, ledger: Ledger, snapshot: Snapshot
    ) -> None:
        self._modules = modules
        self._units = units
        self._ledger = ledger
        self._snapshot = snapshot
        sublayers = [x for stack in units.stacks for block in stack.sublayers for x in block]
        self._resumed = {x.output for x in sublayers if x.module}  # attention resumes from their inputs
        self._in_blocks = False
        self._left: list[Any] = []  # the states that were copied last
        self._copied: list[tuple[Tensor, int]] = []  # their tensors then, with versions
        self._seen: list[tuple[weakref.ref[Tensor], int]] = []  # those of all states that were copied
        self.calls: dict[str, list[Call]] = {}
        self.embeddings: list[str] = []

    @property
    def states_exchange(self) -> bool | None:
        """Whether no tensor of a state was changed in place until now; None if nothing is known."""
        if not self._seen:
            return None
        alive = ((tensor(), then) for tensor, then in self._seen)
        return all(then >= 0 and (tensor is None or version(tensor) == then) for tensor, then in alive)

    def forwards(self) -> dict[str, Forward]:
        """The forward of every unit during the clean pass."""
        made = {path: self._stateless(path, Worth.EMBEDDING) for path in self._units.outside}
        for stack in self._units.stacks:
            if stack.module:
                made[stack.module] = self._unit(stack.module, _Turn(), Worth.STACK)
            turn = _Turn()
            for path in stack.inside:
                worth = Worth.BLOCK if path in stack.blocks else Worth.SUBLAYER
                made[path] = self._unit(path, turn, Worth.ENTRY if path == stack.entry else worth)
            made |= {path: self._stateless(path, Worth.CROSS) for _, path in stack.cross}
        return made

    def _unit(self, path: str, turn: _Turn, worth: Worth) -> Forward:
        original, calls = self._modules[path].forward, self.calls.setdefault(path, [])
        leads = worth >= Worth.STACK

        def forward(*args: Any, **kwargs: Any) -> Any:
            self._in_blocks = self._in_blocks or worth is not Worth.STACK
            states = states_among(args, kwargs)
            if leads:
                turn.begin(states)
            call, first = Call(), not calls
            calls.append(call)
            inputs: Inputs | None = None
            recording = turn.on and self._ledger.room(_nbytes(states), worth, first=first)
            if leads and recording:
                inputs = self._inputs(args, kwargs)
            elif path in self._resumed:
                inputs = args, kwargs
            output = original(*args, **kwargs)
            if recording and self._ledger.room(_nbytes(states), worth, first=first):
                left = self._copy(states) if states else []
                record = CallRecord(kept(output, states, self._snapshot), inputs, left, self._snapshot)
                self._ledger.enter(call, record, worth, first=first)
            return output

        return forward

    def _copy(self, states: list[Any]) -> list[Any]:
        """A copy of the states; a block and its attention leave the same ones, so one copy serves both."""
        now = [(tensor, version(tensor)) for tensor in leaves(states, Tensor)]
        if any(count < 0 for _, count in now):
            unchanged = same(states, self._left)
        else:  # without looking at numbers, for which an accelerator would have to finish
            tensors = zip(now, self._copied, strict=False)
            untouched = all(x is old and count == before for (x, count), (old, before) in tensors)
            unchanged = len(now) == len(self._copied) and untouched and alike(states, self._left)
        if not unchanged:
            self._left, self._copied = self._snapshot(states), now
            self._seen += [(weakref.ref(tensor), count) for tensor, count in now]
        return self._left

    def _inputs(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Inputs:
        return kept(args, (), self._snapshot), kept(kwargs, (), self._snapshot)

    def _stateless(self, path: str, worth: Worth) -> Forward:
        """Records an embedding, or a projection of cross-attention, unless it takes states."""
        original, calls = self._modules[path].forward, self.calls.setdefault(path, [])

        def forward(*args: Any, **kwargs: Any) -> Any:
            if worth is Worth.EMBEDDING and not calls and not self._in_blocks:
                self.embeddings.append(path)
            inputs = self._inputs(args, kwargs)
            output = original(*args, **kwargs)
            call, first = Call(), not calls
            calls.append(call)
            if (worth is Worth.CROSS or path in self.embeddings) and not states_among(args, kwargs):
                record = CallRecord(kept(output, (), self._snapshot), inputs, [], self._snapshot)
                self._ledger.enter(call, record, worth, first=first)
            return output

        return forward


class _Turn:
    """Whether the current call of a stack is recorded: only the first call with a given state is."""

    def __init__(self) -> None:
        self._seen: list[Any] = []
        self.on = False

    def begin(self, states: list[Any]) -> None:
        self.on = not any(state is old for state in states for old in self._seen)
        self._seen.extend(states if self.on else [])


def _nbytes(value: Any) -> int:
    return sum(tensor.nbytes for tensor in leaves(value, Tensor))


class Gate:
    """Decides, at the first unit of a stack, whether this call of the stack may be replayed."""

    def __init__(self, calls: list[Call], comparisons: Comparisons) -> None:
        self.calls = calls
        self._comparisons = comparisons
        self.index = -1
        self.open = False

    def lead(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Opens for the next call if its inputs are the recorded ones, and closes otherwise."""
        self.index += 1
        record = self.calls[self.index].usable if self.index < len(self.calls) else None
        # later calls may read what was ablated
        self.open = record is not None and self._comparisons.same(
            (args, kwargs), record.inputs, expected=self.index == 0
        )

    def record(self, calls: list[Call]) -> CallRecord | None:
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
        return given(record.output, _restored_states(record, args, kwargs), record.snapshot)

    return forward


def _restored_states(record: CallRecord, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The states among the arguments, as the recorded call left them."""
    states = states_among(args, kwargs)
    for state, left in zip(states, record.states, strict=True):
        vars(state).update(vars(record.snapshot(left)))
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
        returned = [tensor for tensor in leaves(record.output, Tensor) if _shows(tensor, projection.output)]
        if not returned:
            return original(*args, **kwargs)  # the attention changes its projection before returning it
        recorded = given(record.output, _restored_states(record, args, kwargs), record.snapshot)
        projected = output(*projection.inputs[0])
        swapped = returned[0] is not projection.output
        return substituted(recorded, returned[0], projected.transpose(0, 1) if swapped else projected)

    return forward


def _shows(tensor: Tensor, projected: Any) -> bool:
    """Whether `tensor` is what the projection returned, or a view of it with its first two axes swapped."""
    if tensor is projected:
        return True
    if not isinstance(projected, Tensor) or projected.dim() < 2 or tensor.data_ptr() != projected.data_ptr():
        return False
    view = projected.transpose(0, 1)
    return tensor.shape == view.shape and tensor.stride() == view.stride()


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
