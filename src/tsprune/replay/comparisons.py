"""Values compared bit by bit, with few reads from an accelerator.

A read waits until the accelerator has finished all that it was given. The tensors of two values are therefore
compared with one read, and comparisons that are expected to hold can be read together, when the work that
relied on them is done.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from tsprune.replay.values import is_state

_Pairs = list[tuple[Tensor, Tensor]]
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def same(now: Any, then: Any) -> bool:
    """Whether two values hold exactly the same bits, in containers of the same types."""
    pairs = _pairs(now, then)
    return pairs is not None and _equal(pairs)


def alike(now: Any, then: Any) -> bool:
    """Whether two values differ, if at all, in the numbers that their tensors hold; nothing is read."""
    return _pairs(now, then) is not None


class Comparisons:
    """Comparisons of inputs with recorded ones during one forecast.

    deferring : whether values on an accelerator are taken to be equal where that is expected; `failed` tells
        later if they were not
    """

    def __init__(self, *, deferring: bool = False) -> None:
        self._deferring = deferring
        self._differences: list[Tensor] = []

    def same(self, now: Any, then: Any, *, expected: bool) -> bool:
        """As the function `same`, but for deferred answers."""
        pairs = _pairs(now, then)
        if pairs is None:
            return False
        if self._deferring and expected:
            there = [pair for pair in pairs if pair[0].device.type != "cpu"]
            self._differences += [_difference(there)] if there else []
            pairs = [pair for pair in pairs if pair[0].device.type == "cpu"]
        return _equal(pairs)

    @property
    def failed(self) -> bool:
        """Whether an assumed answer was wrong, in one read."""
        return bool(self._differences) and bool(torch.stack(self._differences).any())


def _pairs(now: Any, then: Any) -> _Pairs | None:
    """Tensors of two values that must be equal; None if the values differ in anything else."""
    if now is then:
        return []
    if type(now) is not type(then):
        return None
    if isinstance(now, Tensor):
        fitting = (now.shape, now.dtype, now.device) == (then.shape, then.dtype, then.device)
        return [(now, then)] if fitting else None
    if isinstance(now, dict):
        return _joined((now[key], then[key]) for key in now) if now.keys() == then.keys() else None
    if isinstance(now, tuple | list):
        return _joined(zip(now, then, strict=True)) if len(now) == len(then) else None
    if is_state(now):
        return _pairs(vars(now), vars(then))
    return [] if now == then else None


def _joined(values: Iterable[tuple[Any, Any]]) -> _Pairs | None:
    pairs: _Pairs = []
    for now, then in values:
        found = _pairs(now, then)
        if found is None:
            return None
        pairs += found
    return pairs


def _equal(pairs: _Pairs) -> bool:
    there = [pair for pair in pairs if pair[0].device.type != "cpu"]
    here = (pair for pair in pairs if pair[0].device.type == "cpu")
    return all(torch.equal(*map(_bits, pair)) for pair in here) and not (there and bool(_difference(there)))


def _difference(pairs: _Pairs) -> Tensor:
    """Whether a pair differs, as a scalar on its device."""
    return torch.stack([(_bits(now) != _bits(then)).any() for now, then in pairs]).any()


def _bits(tensor: Tensor) -> Tensor:
    """Floats as integers, so that NaN equals itself."""
    floats = tensor.is_floating_point() and tensor.element_size() in _INTEGERS
    return tensor.detach().view(_INTEGERS[tensor.element_size()]) if floats else tensor
