"""Values that modules take and return: keeping them, giving them back, comparing and measuring them.

Tensors are kept as they are, not copied: the clean pass made them anyway. Containers are rebuilt,
because callers change them (transformers' outputs are dicts, and `generate` edits them). Objects
that a module changes in place, such as a key-value cache, are kept and given back as deep copies.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

_PLAIN = (Tensor, nn.Module, type, str, bytes, int, float, bool, type(None))
Leaf = TypeVar("Leaf", Tensor, nn.Module)
Inputs = tuple[tuple[Any, ...], dict[str, Any]]


def is_state(value: object) -> bool:
    """Whether `value` is an object that a module may change in place (such as a cache)."""
    return not isinstance(value, (*_PLAIN, tuple, list, dict)) and hasattr(value, "__dict__")


def states_among(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Those arguments of a call that it may change in place."""
    return [value for value in (*args, *kwargs.values()) if is_state(value)]


@dataclasses.dataclass(frozen=True)
class _Argument:
    """Stands in a kept output for the state that the call was given as its n-th."""

    number: int


def kept(value: Any, states: Sequence[Any] = ()) -> Any:
    """`value` for safe keeping: tensors as they are, containers rebuilt, state copied.

    states : arguments of the call that returned `value`, which may be among what it returned
    """
    for number, state in enumerate(states):
        if value is state:
            return _Argument(number)
    return _rebuilt(value, lambda item: kept(item, states), copied)


def given(value: Any, states: Sequence[Any]) -> Any:
    """A kept output as a call with `states` returns it."""
    if isinstance(value, _Argument):
        return states[value.number]
    return _rebuilt(value, lambda item: given(item, states), copied)


def substituted(value: Any, old: Tensor, new: Tensor) -> Any:
    """`value` with the tensor `old` (that very one) replaced by `new`, in whatever containers."""
    if value is old:
        return new
    return _rebuilt(value, lambda item: substituted(item, old, new), lambda state: state)


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """`value` with every tensor changed, in whatever containers; objects with state are copied."""
    if isinstance(value, Tensor):
        return change(value)

    def state(one: Any) -> Any:
        memo: dict[int, Any] = {id(tensor): change(tensor) for tensor in leaves(one, Tensor)}
        return copy.deepcopy(one, memo | {id(module): module for module in leaves(one, nn.Module)})

    return _rebuilt(value, lambda item: mapped(item, change), state)


def _rebuilt(value: Any, each: Callable[[Any], Any], state: Callable[[Any], Any]) -> Any:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, tuple) and type(value) is tuple:
        return tuple(each(item) for item in value)
    if isinstance(value, dict):
        rebuilt = copy.copy(value)
        for key, item in value.items():
            rebuilt[key] = each(item)
        return rebuilt
    if isinstance(value, list):
        return [each(item) for item in value]
    return state(value) if is_state(value) else value


def copied(state: Any) -> Any:
    """A deep copy, its tensors detached (those made under autograd cannot be copied otherwise).

    Modules that it refers to are the model's own, and stay.
    """
    memo: dict[int, Any] = {id(tensor): tensor.detach().clone() for tensor in leaves(state, Tensor)}
    return copy.deepcopy(state, memo | {id(module): module for module in leaves(state, nn.Module)})


def same(now: Any, then: Any) -> bool:
    """Whether two inputs hold exactly the same bits, whatever containers they are in."""
    if now is then:
        return True
    if type(now) is not type(then):
        return False
    if isinstance(now, Tensor):
        return now.shape == then.shape and now.dtype == then.dtype and torch.equal(_bits(now), _bits(then))
    if isinstance(now, dict):
        return now.keys() == then.keys() and all(same(now[key], then[key]) for key in now)
    if isinstance(now, tuple | list):
        return len(now) == len(then) and all(map(same, now, then))
    if is_state(now):
        return same(vars(now), vars(then))
    return bool(now == then)


_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def _bits(tensor: Tensor) -> Tensor:
    """Floats as integers: a missing value (NaN) is the same as itself."""
    floats = tensor.is_floating_point() and tensor.element_size() in _INTEGERS
    return tensor.detach().view(_INTEGERS[tensor.element_size()]) if floats else tensor


def leaves(value: Any, kind: type[Leaf]) -> Iterator[Leaf]:
    """The tensors (or modules) that `value` holds."""
    if isinstance(value, kind):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from leaves(item, kind)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from leaves(item, kind)
    elif is_state(value):
        yield from leaves(vars(value), kind)


def version(tensor: Tensor) -> int:
    """Counts the changes of a tensor in place (not those of inference tensors, which have no count)."""
    return -1 if tensor.is_inference() else int(tensor._version)


def storages(value: Any) -> dict[int, int]:
    """Address -> bytes of the memory behind the tensors of `value`, views of one storage once."""
    return {
        storage.data_ptr(): storage.nbytes()
        for storage in (tensor.untyped_storage() for tensor in leaves(value, Tensor))
    }
