"""Deep copies of models."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, TypeVar

from torch import nn

if TYPE_CHECKING:
    from tsprune.models.forecaster import Forecaster

_Module = TypeVar("_Module", bound=nn.Module)


def model_copy(model: Forecaster) -> Forecaster:
    """A deep copy of `model`."""
    return copy.deepcopy(model, _uncopied(model.module))


def network_copy(module: _Module) -> _Module:
    """A deep copy of an upstream module."""
    return copy.deepcopy(module, _uncopied(module))


def _uncopied(module: nn.Module) -> dict[int, object]:
    """staticmethod objects in attributes (rotary embeddings of Toto and t0), which cannot be copied."""
    return {
        id(value): value
        for part in module.modules()
        for value in vars(part).values()
        if isinstance(value, staticmethod)
    }
