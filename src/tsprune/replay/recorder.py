"""Recording a clean pass: forwards that compute as ever and keep what they return."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from tsprune.replay.recorded_calls import Call, Ledger, Record, Worth
from tsprune.replay.recorded_modules import Units
from tsprune.replay.values import Inputs, copied, kept, leaves, same, states_among

Forward = Callable[..., Any]
Calls = dict[str, list[Call]]


class Recorder:
    """Makes the recording forwards of one clean pass; `calls` is what they have recorded.

    `embeddings` are modules outside of all blocks that ran before any block did.
    """

    def __init__(self, modules: Mapping[str, nn.Module], units: Units, ledger: Ledger) -> None:
        self._modules = modules
        self._units = units
        self._ledger = ledger
        self._outputs = {  # of attention sublayers, which are resumed from their inputs
            x.output for name in units.names for block in units.sublayers[name] for x in block if x.module
        }
        self._in_blocks = False
        self._left: list[Any] = []  # the states that were copied last
        self.calls: Calls = {}
        self.embeddings: list[str] = []

    def forwards(self) -> dict[str, Forward]:
        """The forward that each unit is to have during the clean pass."""
        made: dict[str, Forward] = {}
        for path in self._units.outside:
            made[path] = self._embedding(path)
        for name in self._units.names:
            if name in self._units.stacks:
                path = self._units.stacks[name]
                made[path] = self._unit(path, _Turn(), Worth.STACK, leads=True)
            entry, turn = self._units.entry(name), _Turn()
            for path in self._units.inside(name):
                worth = Worth.BLOCK if path in self._units.blocks[name] else Worth.SUBLAYER
                leads = path == entry
                made[path] = self._unit(path, turn, Worth.ENTRY if leads else worth, leads=leads)
            for _, path in self._units.cross[name]:
                made[path] = self._projection(path)
        return made

    def _unit(self, path: str, turn: _Turn, worth: Worth, *, leads: bool) -> Forward:
        original, calls = self._modules[path].forward, self.calls.setdefault(path, [])

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
                inputs = kept(args), {name: kept(value) for name, value in kwargs.items()}
            elif path in self._outputs:
                inputs = args, kwargs
            output = original(*args, **kwargs)
            if recording and self._ledger.room(_nbytes(states), worth, first=first):
                record = Record(kept(output, states), inputs, self._copied(states))
                self._ledger.enter(call, record, worth, first=first)
            return output

        return forward

    def _copied(self, states: list[Any]) -> list[Any]:
        """A block and the attention in it leave the same: one copy is enough."""
        if not states:
            return []
        if not same(states, self._left):
            self._left = copied(states)
        return self._left

    def _projection(self, path: str) -> Forward:
        original, calls = self._modules[path].forward, self.calls.setdefault(path, [])

        def forward(hidden: Tensor) -> Any:
            output = original(hidden)
            call, first = Call(), not calls
            calls.append(call)
            self._ledger.enter(call, Record(output, ((hidden,), {}), []), Worth.CROSS, first=first)
            return output

        return forward

    def _embedding(self, path: str) -> Forward:
        original, calls = self._modules[path].forward, self.calls.setdefault(path, [])

        def forward(*args: Any, **kwargs: Any) -> Any:
            if not calls and not self._in_blocks:
                self.embeddings.append(path)
            inputs = kept(args), kept(kwargs)
            output = original(*args, **kwargs)
            call, first = Call(), not calls
            calls.append(call)
            if path in self.embeddings and not states_among(args, kwargs):
                self._ledger.enter(call, Record(kept(output), inputs, []), Worth.EMBEDDING, first=first)
            return output

        return forward


class _Turn:
    """Whether the present call of a stack is recorded: only the first with the same state is."""

    def __init__(self) -> None:
        self._seen: list[Any] = []
        self.on = False

    def begin(self, states: list[Any]) -> None:
        self.on = not any(state is old for state in states for old in self._seen)
        self._seen.extend(states if self.on else [])


def _nbytes(value: Any) -> int:
    return sum(tensor.nbytes for tensor in leaves(value, Tensor))
