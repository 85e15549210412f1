"""Replay: what lies upstream of an ablation is returned from a clean pass, not computed again.

1. `record` runs the clean pass once and keeps, call by call, what every unit returned. Units are
   whole stacks, blocks, and the key and value projections of cross-attention.
2. `reuse` makes every unit upstream of the lowest ablated component return its record: stacks
   before its stack, blocks before its block, and, if its stack is not the one that is read from,
   the keys and values made from that one.
3. A record is used only if the stack is called with exactly the inputs it had in the clean pass
   (compared, not assumed). In an autoregressive forecast, later steps see other inputs as soon as
   the first forecast differs, and are computed.

Results are bit-identical to the plain run. Objects that a block changes in place (a key-value
cache) are recorded as copies and put back as copies; gradients do not flow through these. Only the
first call with such an object is recorded, and only while the copies fit a limit: the later steps
of a decoding loop are not what makes a replay fast, but their caches are what fills the memory.
"""

from __future__ import annotations

import copy
import dataclasses
import operator
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tsprune.anatomy import Anatomy, Component, Stack
from tsprune.models.forecaster import Forecaster

_PLAIN = (Tensor, nn.Module, type, str, bytes, int, float, bool, type(None))
Leaf = TypeVar("Leaf", Tensor, nn.Module)
COPIES_LIMIT = 512 * 2**20  # bytes of caches, and of keys and values made from an encoder, per record


def _is_state(value: object) -> bool:
    """Whether `value` is an object that a module may change in place (such as a cache)."""
    return not isinstance(value, (*_PLAIN, tuple, list, dict)) and hasattr(value, "__dict__")


@dataclasses.dataclass(frozen=True)
class _Argument:
    """Stands in a recorded output for the state that the call was given as its n-th."""

    number: int


def _kept(value: Any, states: Sequence[Any] = ()) -> Any:
    """`value` for safe keeping: tensors as they are, containers rebuilt, state copied.

    states : arguments of the call that returned `value`, which may be among what it returned
    """
    for number, state in enumerate(states):
        if value is state:
            return _Argument(number)
    return _rebuilt(value, lambda item: _kept(item, states), _copied)


def _given(value: Any, states: Sequence[Any]) -> Any:
    """A recorded output as a call with `states` returns it."""
    if isinstance(value, _Argument):
        return states[value.number]
    return _rebuilt(value, lambda item: _given(item, states), _copied)


def _rebuilt(value: Any, each: Callable[[Any], Any], state: Callable[[Any], Any]) -> Any:
    if isinstance(value, tuple) and type(value) is tuple:
        return tuple(each(item) for item in value)
    if isinstance(value, dict):  # transformers' outputs are dicts, and `generate` changes them
        rebuilt = copy.copy(value)
        for key, item in value.items():
            rebuilt[key] = each(item)
        return rebuilt
    if isinstance(value, list):
        return [each(item) for item in value]
    return state(value) if _is_state(value) else value


def _copied(state: Any) -> Any:
    """A deep copy, its tensors detached (those made under autograd cannot be copied otherwise).

    Modules that it refers to are the model's own, and stay.
    """
    memo: dict[int, Any] = {id(tensor): tensor.detach().clone() for tensor in _leaves(state, Tensor)}
    return copy.deepcopy(state, memo | {id(module): module for module in _leaves(state, nn.Module)})


def _same(now: Any, then: Any) -> bool:
    """Whether two inputs hold exactly the same values, whatever containers they are in."""
    if now is then:
        return True
    if type(now) is not type(then):
        return False
    if isinstance(now, Tensor):
        return now.shape == then.shape and now.dtype == then.dtype and torch.equal(now, then)
    if isinstance(now, dict):
        return now.keys() == then.keys() and all(_same(now[key], then[key]) for key in now)
    if isinstance(now, tuple | list):
        return len(now) == len(then) and all(map(_same, now, then))
    if _is_state(now):
        return _same(vars(now), vars(then))
    return bool(now == then)


def _states(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    return [value for value in (*args, *kwargs.values()) if _is_state(value)]


def _leaves(value: Any, kind: type[Leaf]) -> Iterator[Leaf]:
    """The tensors (or modules) that `value` holds."""
    if isinstance(value, kind):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _leaves(item, kind)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _leaves(item, kind)
    elif _is_state(value):
        yield from _leaves(vars(value), kind)


def _nbytes(value: Any) -> int:
    return sum(tensor.nbytes for tensor in _leaves(value, Tensor))


@dataclasses.dataclass
class _Call:
    """One call of one unit in the clean pass; without inputs and output if it was not recorded."""

    output: Any = None
    inputs: tuple[tuple[Any, ...], dict[str, Any]] | None = None  # kept where they are compared
    states: list[Any] = dataclasses.field(default_factory=list)  # arguments as the call left them


@dataclasses.dataclass
class _Budget:
    left: int

    def take(self, nbytes: int) -> bool:
        """Whether `nbytes` more fit; if so they are taken."""
        fits = nbytes <= self.left
        self.left -= nbytes if fits else 0
        return fits


class _Recording:
    """The calls of units that run one after the other: a call of all of them is recorded, or of none."""

    def __init__(self, calls: Mapping[str, list[_Call]], budget: _Budget) -> None:
        self.calls = calls
        self._budget = budget
        self._seen: list[Any] = []
        self._started = 0
        self.on = False

    def start(self, states: list[Any]) -> None:
        """At the first unit: is this call to be recorded?"""
        self.on = not any(state is old for state in states for old in self._seen)
        self._seen.extend(states if self.on else [])
        self._started += 1

    def afford(self, nbytes: int) -> bool:
        """Whether so much more may be kept; if not, nothing of this call is."""
        if self.on and not self._budget.take(nbytes):
            self.on = False
            for calls in self.calls.values():
                calls[self._started - 1 :] = [_Call() for _ in calls[self._started - 1 :]]
        return self.on


@dataclasses.dataclass(frozen=True)
class _Units:
    """Paths of the units of one model.

    entry : of each stack, the module whose inputs decide whether its records may be used
    """

    stacks: dict[str, str]
    blocks: dict[str, tuple[str, ...]]
    entry: dict[str, str]
    cross: dict[str, tuple[tuple[int, str], ...]]  # stack -> (layer, projection path)


def _units(anatomy: Anatomy) -> _Units:
    def cross(stack: Stack) -> tuple[tuple[int, str], ...]:
        return tuple(
            (layer, projection.module)
            for layer, block in enumerate(stack.blocks)
            for site in block.attention
            if site.kind == "cross"
            for projection in (site.key, site.value)
        )

    return _Units(
        stacks={stack.name: stack.module for stack in anatomy.stacks if stack.module},
        blocks={stack.name: tuple(block.module for block in stack.blocks) for stack in anatomy.stacks},
        entry={stack.name: stack.blocks[0].module for stack in anatomy.stacks},
        cross={stack.name: cross(stack) for stack in anatomy.stacks},
    )


class Replay:
    """Clean-pass records of one model, by a key of the caller's (one per batch of windows)."""

    def __init__(self, model: Forecaster) -> None:
        self._module = model.module
        self._anatomy = model.anatomy
        self._units = _units(model.anatomy)
        self._records: dict[Hashable, dict[str, list[_Call]]] = {}

    @property
    def nbytes(self) -> int:
        """Memory held by the records, in bytes (shared storage counted once)."""
        storages = {
            tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
            for calls in self._records.values()
            for path_calls in calls.values()
            for call in path_calls
            for tensor in _leaves((call.output, call.inputs, call.states), Tensor)
        }
        return sum(storages.values())

    def forget(self, key: Hashable) -> None:
        """Drops the record of `key`."""
        self._records.pop(key, None)

    @contextmanager
    def record(self, key: Hashable) -> Iterator[None]:
        """Records the calls made while the context lasts (a clean pass) under `key`."""
        budget = _Budget(COPIES_LIMIT)
        units = self._units
        groups = [(path,) for path in units.stacks.values()] + list(units.blocks.values())
        projections = [(path,) for pairs in units.cross.values() for _, path in pairs]
        recorded: dict[str, list[_Call]] = {}
        with ExitStack() as patches:
            for paths in groups + projections:
                recording = _Recording({path: [] for path in paths}, budget)
                recorded |= recording.calls
                for path in paths:
                    forward = self._recorder(path, recording, costly=paths in projections)
                    patches.enter_context(_forward(self._module, path, forward))
            yield
        self._records[key] = recorded

    def _recorder(self, path: str, recording: _Recording, *, costly: bool) -> Callable[..., Any]:
        """costly : the outputs count against the limit"""
        original = self._module.get_submodule(path).forward
        leads = path == next(iter(recording.calls))
        calls = recording.calls[path]

        def forward(*args: Any, **kwargs: Any) -> Any:
            states = _states(args, kwargs)
            if leads:
                recording.start(states)
            call = _Call()
            calls.append(call)
            inputs = None
            if leads and recording.afford(_nbytes(states)):
                inputs = (_kept(args), {name: _kept(value) for name, value in kwargs.items()})
            output = original(*args, **kwargs)
            if recording.afford(_nbytes(states) + (_nbytes(output) if costly else 0)):
                call.output, call.inputs, call.states = _kept(output, states), inputs, _copied(states)
            return output

        return forward

    @contextmanager
    def reuse(self, key: Hashable, components: Iterable[Component]) -> Iterator[None]:
        """Everything upstream of `components` returns what was recorded under `key`.

        Without components (an empty ablation) everything is upstream.
        """
        calls = self._records[key]
        names = [stack.name for stack in self._anatomy.stacks]
        lowest = min(((names.index(c.stack), c.layer) for c in components), default=(len(names), 0))
        with ExitStack() as patches:
            for position, name in enumerate(names):
                if position < lowest[0]:
                    self._skip_stack(patches, name, calls)
                elif position == lowest[0]:
                    self._skip_blocks(patches, name, lowest[1], calls)
                    self._keep_cross(patches, name, lowest[1], calls)
            yield

    def _skip_stack(self, patches: ExitStack, name: str, calls: dict[str, list[_Call]]) -> None:
        path = self._units.stacks.get(name)
        if path is None:
            self._skip_blocks(patches, name, len(self._units.blocks[name]), calls)
            return
        gate = _Gate(calls[path])
        forward = _replayed(self._module.get_submodule(path).forward, calls[path], gate, leads=True)
        patches.enter_context(_forward(self._module, path, forward))

    def _skip_blocks(self, patches: ExitStack, name: str, count: int, calls: dict[str, list[_Call]]) -> None:
        gate = _Gate(calls[self._units.entry[name]])
        for path in self._units.blocks[name][:count]:
            leads = path == self._units.entry[name]
            forward = _replayed(self._module.get_submodule(path).forward, calls[path], gate, leads=leads)
            patches.enter_context(_forward(self._module, path, forward))

    def _keep_cross(self, patches: ExitStack, name: str, first: int, calls: dict[str, list[_Call]]) -> None:
        for layer, path in self._units.cross[name]:
            if layer >= first:
                original = self._module.get_submodule(path).forward
                patches.enter_context(_forward(self._module, path, _projected(original, calls[path])))


class _Gate:
    """Decides, at the first unit of a stack, whether this call of the stack may be replayed."""

    def __init__(self, calls: list[_Call]) -> None:
        self._calls = calls
        self.index = -1
        self.open = False

    def lead(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.index += 1
        inputs = self._calls[self.index].inputs if self.index < len(self._calls) else None
        self.open = inputs is not None and _same((args, kwargs), inputs)


def _replayed(
    original: Callable[..., Any], calls: list[_Call], gate: _Gate, *, leads: bool
) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        if leads:
            gate.lead(args, kwargs)
        if not gate.open:
            return original(*args, **kwargs)
        call = calls[gate.index]
        states = _states(args, kwargs)
        for state, left in zip(states, call.states, strict=True):
            vars(state).update(vars(_copied(left)))
        return _given(call.output, states)

    return forward


def _projected(original: Callable[..., Any], calls: list[_Call]) -> Callable[..., Any]:
    """Keys or values made from an encoder's output: if it is a recorded one, theirs."""
    recorded = [(call.inputs[0][0], call.output) for call in calls if call.inputs is not None]

    def forward(hidden: Tensor) -> Any:
        for same in (operator.is_, _same):  # equal copies are found, but compared only if need be
            for then, output in recorded:
                if same(hidden, then):
                    return output
        return original(hidden)

    return forward


@contextmanager
def _forward(root: nn.Module, path: str, forward: Callable[..., Any]) -> Iterator[None]:
    """The submodule at `path` with another forward; hooks on it still run."""
    module = root.get_submodule(path)
    outer = module.__dict__.get("forward")
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        if outer is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = outer
