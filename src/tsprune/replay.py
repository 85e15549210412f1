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
cache) are recorded as copies and put back as copies; gradients do not flow through these.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tsprune.anatomy import Anatomy, Block, Component, Stack
from tsprune.models.forecaster import Forecaster

_PLAIN = (Tensor, nn.Module, str, bytes, int, float, bool, type(None))


def _is_state(value: object) -> bool:
    """Whether `value` is an object that a module may change in place (such as a cache)."""
    return not isinstance(value, (*_PLAIN, tuple, list, dict)) and hasattr(value, "__dict__")


def _kept(value: Any) -> Any:
    """`value` for safe keeping: tensors as they are, containers rebuilt, state copied."""
    if isinstance(value, tuple) and type(value) is tuple:
        return tuple(_kept(item) for item in value)
    return _copied(value) if _is_state(value) and not _is_model_output(value) else value


def _copied(state: Any) -> Any:
    """A deep copy, its tensors detached (those made under autograd cannot be copied otherwise)."""
    return copy.deepcopy(state, {id(tensor): tensor.detach().clone() for tensor in _tensors(state)})


def _is_model_output(value: object) -> bool:
    """transformers' ModelOutput: a dict in disguise that holds tensors and is never changed."""
    return isinstance(value, dict)


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


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
    elif _is_state(value):
        yield from _tensors(vars(value))


@dataclasses.dataclass
class _Call:
    """One call of one unit in the clean pass."""

    output: Any
    inputs: tuple[tuple[Any, ...], dict[str, Any]] | None = None  # kept where they are compared
    states: list[Any] = dataclasses.field(default_factory=list)  # arguments as the call left them


@dataclasses.dataclass(frozen=True)
class _Sublayer:
    """A sublayer of a block: an attention module, or (module None) an MLP, and its output module."""

    module: str | None
    output: str


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

    def paths(self) -> dict[str, bool]:
        """Every unit -> whether its inputs are kept, because they are compared or used again."""
        found = dict.fromkeys((path for paths in self.blocks.values() for path in paths), False)
        for sublayer in (x for blocks in self.sublayers.values() for block in blocks for x in block):
            if sublayer.module is not None:
                found[sublayer.module] = False
            found[sublayer.output] = True
        kept = (*self.stacks.values(), *self.entry.values())
        projections = (path for pairs in self.cross.values() for _, path in pairs)
        return found | dict.fromkeys((*kept, *projections), True)


def _units(anatomy: Anatomy) -> _Units:
    def cross(stack: Stack) -> tuple[tuple[int, str], ...]:
        return tuple(
            (layer, projection.module)
            for layer, block in enumerate(stack.blocks)
            for site in block.attention
            if site.kind == "cross"
            for projection in (site.key, site.value)
        )

    def sublayers(block: Block) -> tuple[_Sublayer, ...]:
        attention = (_Sublayer(site.module, site.output) for site in block.attention)
        return (*attention, _Sublayer(None, block.mlp.output))

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
            for tensor in _tensors((call.output, call.inputs, call.states))
        }
        return sum(storages.values())

    def forget(self, key: Hashable) -> None:
        """Drops the record of `key`."""
        self._records.pop(key, None)

    @contextmanager
    def record(self, key: Hashable) -> Iterator[None]:
        """Records the calls made while the context lasts (a clean pass) under `key`."""
        calls: dict[str, list[_Call]] = {}
        with ExitStack() as patches:
            for path, keep_inputs in self._units.paths().items():
                forward = self._recorder(calls.setdefault(path, []), path, keep_inputs)
                patches.enter_context(_forward(self._module, path, forward))
            yield
        self._records[key] = calls

    def _recorder(self, calls: list[_Call], path: str, keep_inputs: bool) -> Callable[..., Any]:
        original = self._module.get_submodule(path).forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            inputs = None
            if keep_inputs:
                inputs = (_kept(args), {name: _kept(value) for name, value in kwargs.items()})
            output = original(*args, **kwargs)
            states = _copied(_states(args, kwargs))
            calls.append(_Call(_kept(output), inputs, states))
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
        """(stack, layer, sublayer) of where `component` first changes anything."""
        block = self._anatomy.block(component)
        kinds = [site.kind for site in block.attention]
        sublayer = 0 if component.kind == "layer" else len(kinds)
        if component.attention is not None:
            sublayer = kinds.index(component.attention)
        stack = [stack.name for stack in self._anatomy.stacks].index(component.stack)
        return stack, component.layer, sublayer

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
        sublayers = self._units.sublayers[name][layer]
        for before in sublayers[:sublayer]:
            assert before.module is not None  # the MLP is the last sublayer
            path = before.module
            self._patch(patches, path, _replayed(self._original(path), calls[path], gate, leads=False))
        lowest = sublayers[sublayer]
        if lowest.module is None:
            path = lowest.output
            self._patch(patches, path, _replayed(self._original(path), calls[path], gate, leads=False))
            return
        output = self._module.get_submodule(lowest.output)
        forward = _resumed(
            self._original(lowest.module), calls[lowest.module], calls[lowest.output], output, gate
        )
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
        known = self.index < len(self._calls)
        self.open = known and _same((args, kwargs), self._calls[self.index].inputs)


def _replayed(
    original: Callable[..., Any], calls: list[_Call], gate: _Gate, *, leads: bool
) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        if leads:
            gate.lead(args, kwargs)
        if not gate.open:
            return original(*args, **kwargs)
        call = calls[gate.index]
        _restore_states(call, args, kwargs)
        return _kept(call.output)

    return forward


def _restore_states(call: _Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Leaves the states among the arguments as the recorded call left them."""
    for state, left in zip(_states(args, kwargs), call.states, strict=True):
        vars(state).update(vars(_copied(left)))


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
        if not gate.open or len(projections) != len(calls):
            return original(*args, **kwargs)
        call, projection = calls[gate.index], projections[gate.index]
        assert projection.inputs is not None
        if not any(tensor is projection.output for tensor in _tensors(call.output)):
            return original(*args, **kwargs)
        _restore_states(call, args, kwargs)
        return _substituted(_kept(call.output), projection.output, output(*projection.inputs[0]))

    return forward


def _substituted(value: Any, old: Tensor, new: Tensor) -> Any:
    """`value` with the tensor `old` (that very one) replaced by `new`, in nested tuples."""
    if value is old:
        return new
    if type(value) is tuple:
        return tuple(_substituted(item, old, new) for item in value)
    return value


def _projected(original: Callable[..., Any], calls: list[_Call]) -> Callable[..., Any]:
    """Keys or values made from a tensor that is itself a record: identity, no comparison."""

    def forward(hidden: Tensor) -> Any:
        for call in calls:
            assert call.inputs is not None
            if call.inputs[0][0] is hidden:
                return call.output
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
