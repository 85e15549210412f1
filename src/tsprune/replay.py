"""Replay: what lies upstream of an ablation is returned from a clean pass, not computed again.

1. `record` runs the clean pass once and keeps, call by call, what every unit returned. Units are
   whole stacks, blocks, attention sublayers, MLPs, and the key and value projections of
   cross-attention.
2. `reuse` makes every unit upstream of the lowest ablated component return its record: stacks
   before its stack, blocks before its block, sublayers before its sublayer, and, if its stack is not
   the one that is read from, the keys and values made from that one. The lowest component's own
   attention is resumed at its output projection: heads of one sublayer share all that comes before.
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

from tsprune.anatomy import Anatomy, Block, Component, Stack
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
class _Sublayer:
    """A sublayer of a block: an attention module, or (module None) an MLP, and its output module."""

    module: str | None
    output: str

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.output,) if self.module is None else (self.module, self.output)


@dataclasses.dataclass(frozen=True)
class _Units:
    """Paths of the units of one model.

    sublayers : of each block of a stack, in order of execution
    entry : of each stack, the module whose inputs decide whether its records may be used
    cross : of each stack, (layer, key or value projection of its cross-attention)
    """

    stacks: dict[str, str]
    blocks: dict[str, tuple[str, ...]]
    sublayers: dict[str, tuple[tuple[_Sublayer, ...], ...]]
    entry: dict[str, str]
    cross: dict[str, tuple[tuple[int, str], ...]]

    def inside(self) -> list[tuple[str, ...]]:
        """Of each stack, its entry and then its other blocks and all sublayers."""
        return [
            tuple(
                dict.fromkeys(
                    (*blocks, *(path for block in self.sublayers[name] for x in block for path in x.paths))
                )
            )
            for name, blocks in self.blocks.items()
        ]

    @property
    def outputs(self) -> set[str]:
        """Output modules of all sublayers."""
        return {x.output for blocks in self.sublayers.values() for block in blocks for x in block}


def _units(anatomy: Anatomy) -> _Units:
    def cross(stack: Stack) -> tuple[tuple[int, str], ...]:
        return tuple(
            (layer, projection.module)
            for layer, block in enumerate(stack.blocks)
            for site in block.attention
            if site.kind == "cross" and site.heads
            for projection in (site.key, site.value)
        )

    def sublayers(block: Block) -> tuple[_Sublayer, ...]:
        attention = (_Sublayer(site.module, site.output) for site in block.attention)
        return (*attention, *([_Sublayer(None, block.mlp.output)] if block.mlp else []))

    stacks = anatomy.stacks
    return _Units(
        stacks={stack.name: stack.module for stack in stacks if stack.module},
        blocks={stack.name: tuple(block.module for block in stack.blocks) for stack in stacks},
        sublayers={stack.name: tuple(sublayers(block) for block in stack.blocks) for stack in stacks},
        entry={stack.name: stack.blocks[0].module for stack in stacks},
        cross={stack.name: cross(stack) for stack in stacks},
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
        projections = [(path,) for pairs in units.cross.values() for _, path in pairs]
        recorded: dict[str, list[_Call]] = {}
        with ExitStack() as patches:
            for paths in [*((path,) for path in units.stacks.values()), *units.inside(), *projections]:
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
            elif path in self._units.outputs:
                inputs = args, kwargs
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
        lowest = min((self._position(c) for c in components), default=(len(names), 0, 0))
        with ExitStack() as patches:
            for position, name in enumerate(names):
                if position < lowest[0]:
                    self._skip_stack(patches, name, calls)
                elif position == lowest[0]:
                    self._skip_into_stack(patches, name, lowest[1], lowest[2], calls)
                    self._keep_cross(patches, name, lowest[1], calls)
            yield

    def _position(self, component: Component) -> tuple[int, int, int]:
        """(stack, block, sublayer) positions of where `component` first changes anything."""
        block = self._anatomy.block(component)
        kinds = [site.kind for site in block.attention]
        sublayer = 0 if component.kind == "layer" else len(kinds)
        if component.attention is not None:
            sublayer = kinds.index(component.attention)
        stack = [stack.name for stack in self._anatomy.stacks].index(component.stack)
        return stack, self._anatomy.block_position(component), sublayer

    def _patch(self, patches: ExitStack, path: str, forward: Callable[..., Any]) -> None:
        patches.enter_context(_forward(self._module, path, forward))

    def _original(self, path: str) -> Callable[..., Any]:
        original: Callable[..., Any] = self._module.get_submodule(path).forward
        return original

    def _skip_stack(self, patches: ExitStack, name: str, calls: dict[str, list[_Call]]) -> None:
        path = self._units.stacks.get(name)
        if path is None:
            self._skip_blocks(patches, name, len(self._units.blocks[name]), calls)
            return
        gate = _Gate(calls[path])
        self._patch(patches, path, _replayed(self._original(path), calls[path], gate, leads=True))

    def _skip_blocks(self, patches: ExitStack, name: str, count: int, calls: dict[str, list[_Call]]) -> _Gate:
        entry = self._units.entry[name]
        gate = _Gate(calls[entry])
        for path in self._units.blocks[name][:count]:
            forward = _replayed(self._original(path), calls[path], gate, leads=path == entry)
            self._patch(patches, path, forward)
        if count == 0:
            self._patch(patches, entry, _leading(self._original(entry), gate))
        return gate

    def _skip_into_stack(
        self, patches: ExitStack, name: str, layer: int, sublayer: int, calls: dict[str, list[_Call]]
    ) -> None:
        gate = self._skip_blocks(patches, name, layer, calls)
        sublayers = self._units.sublayers[name][layer][: sublayer + 1]
        once_a_call = len(calls[self._units.entry[name]])
        if any(len(calls[path]) != once_a_call for x in sublayers for path in x.paths):
            return  # records could not be told apart
        *before, lowest = sublayers
        skipped = [x.module or x.output for x in before] + ([lowest.output] if lowest.module is None else [])
        for path in skipped:
            self._patch(patches, path, _replayed(self._original(path), calls[path], gate, leads=False))
        if lowest.module is not None:
            output = self._module.get_submodule(lowest.output)
            original = self._original(lowest.module)
            forward = _resumed(original, calls[lowest.module], calls[lowest.output], output, gate)
            self._patch(patches, lowest.module, forward)

    def _keep_cross(self, patches: ExitStack, name: str, first: int, calls: dict[str, list[_Call]]) -> None:
        for layer, path in self._units.cross[name]:
            if layer >= first:
                self._patch(patches, path, _projected(self._original(path), calls[path]))


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
        return _given(call.output, _restored_states(call, args, kwargs))

    return forward


def _restored_states(call: _Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The states among the arguments, as the recorded call left them."""
    states = _states(args, kwargs)
    for state, left in zip(states, call.states, strict=True):
        vars(state).update(vars(_copied(left)))
    return states


def _leading(original: Callable[..., Any], gate: _Gate) -> Callable[..., Any]:
    """A stack's first block, computed, that decides for the sublayers inside the stack."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        gate.lead(args, kwargs)
        return original(*args, **kwargs)

    return forward


def _resumed(
    original: Callable[..., Any],
    calls: list[_Call],
    projections: list[_Call],
    output: nn.Module,
    gate: _Gate,
) -> Callable[..., Any]:
    """An attention sublayer from its output projection on, whose hooks run."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        if not gate.open:
            return original(*args, **kwargs)
        call, projection = calls[gate.index], projections[gate.index]
        assert projection.inputs is not None
        if not any(tensor is projection.output for tensor in _leaves(call.output, Tensor)):
            return original(*args, **kwargs)  # what the attention returns is made from its projection
        recorded = _given(call.output, _restored_states(call, args, kwargs))
        return _substituted(recorded, projection.output, output(*projection.inputs[0]))

    return forward


def _substituted(value: Any, old: Tensor, new: Tensor) -> Any:
    """`value` with the tensor `old` (that very one) replaced by `new`, in whatever containers."""
    if value is old:
        return new
    return _rebuilt(value, lambda item: _substituted(item, old, new), lambda state: state)


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
