"""Values that modules take and return: keeping, returning and measuring them.

Tensors are kept without a copy, because the clean pass made them anyway. Containers are rebuilt, because
callers change them (`generate` edits transformers' output dicts). Objects that a module changes in place,
such as a key-value cache, are kept and returned as deep copies. Of one that only exchanges its tensors for
longer ones, the copy may hold the same tensors (`shared_copy`).
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

_PLAIN = (Tensor, nn.Module, type, str, bytes, int, float, bool, type(None))
_Leaf = TypeVar("_Leaf", Tensor, nn.Module)
Inputs = tuple[tuple[Any, ...], dict[str, Any]]
Snapshot = Callable[[Any], Any]  # copies a state


def is_state(value: object) -> bool:
    """Whether `value` is an object that a module may change in place (such as a cache)."""
    return not isinstance(value, (*_PLAIN, tuple, list, dict)) and hasattr(value, "__dict__")


def states_among(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The arguments of a call that the call may change in place."""
    return [value for value in (*args, *kwargs.values()) if is_state(value)]


@dataclasses.dataclass(frozen=True)
class _Argument:
    """Placeholder in a kept output for the n-th state among the call's arguments."""

    number: int


def kept(value: Any, states: Sequence[Any], snapshot: Snapshot) -> Any:
    """`value` for safe keeping: the same tensors, rebuilt containers, copied states.

    states : arguments of the call that returned `value`, which may be part of it
    """
    for number, state in enumerate(states):
        if value is state:
            return _Argument(number)
    return _rebuilt(value, lambda item: kept(item, states, snapshot), snapshot)


def given(value: Any, states: Sequence[Any], snapshot: Snapshot) -> Any:
    """A kept output, as a call with `states` among its arguments returns it."""
    if isinstance(value, _Argument):
        return states[value.number]
    return _rebuilt(value, lambda item: given(item, states, snapshot), snapshot)


def substituted(value: Any, old: Tensor, new: Tensor) -> Any:
    """`value` with the tensor `old` (by identity) replaced by `new`, at any depth of containers."""
    if value is old:
        return new
    return _rebuilt(value, lambda item: substituted(item, old, new), lambda state: state)


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """`value` with `change` applied to every tensor, at any depth of containers; states are copied."""
    if isinstance(value, Tensor):
        return change(value)
    return _rebuilt(value, lambda item: mapped(item, change), lambda state: _deep_copy(state, change))


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


def detached_copy(state: Any) -> Any:
    """A deep copy with detached tensors, because tensors made under autograd cannot be deep-copied."""
    return _deep_copy(state, lambda tensor: tensor.detach().clone())


def shared_copy(state: Any) -> Any:
    """A deep copy that holds the same tensors, without gradients."""
    return _deep_copy(state, lambda tensor: tensor.detach() if tensor.requires_grad else tensor)


def _deep_copy(state: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A deep copy with changed tensors. Modules in it belong to the model and are not copied."""
    memo: dict[int, Any] = {id(tensor): change(tensor) for tensor in leaves(state, Tensor)}
    return copy.deepcopy(state, memo | {id(module): module for module in leaves(state, nn.Module)})


def leaves(value: Any, kind: type[_Leaf]) -> Iterator[_Leaf]:
    """The tensors (or modules) in `value`, at any depth of containers and states."""
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
    """torch's count of in-place changes; -1 for inference tensors, which have no count."""
    return -1 if tensor.is_inference() else int(tensor._version)


def storages(value: Any) -> dict[int, int]:
    """Address -> bytes of the memory behind the tensors of `value`; views share one storage."""
    found = [tensor.untyped_storage() for tensor in leaves(value, Tensor)]
    return {storage.data_ptr(): storage.nbytes() for storage in found}


def random_like(stream: Tensor, seed: int) -> Tensor:
    """Normal values of the shape of `stream` [..., F], scaled by its largest magnitude per feature.

    Two kernels that round differently may agree on one batch by chance. A faster computation is therefore
    compared on random streams as well, before it is trusted to give the same bits.
    """
    generator = torch.Generator().manual_seed(seed)
    size = stream.detach().abs().amax(dim=tuple(range(stream.ndim - 1)))
    noise = torch.randn(stream.shape, generator=generator)
    return noise.to(stream.device, stream.dtype) * size
