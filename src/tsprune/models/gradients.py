"""Gradients of a forecast, although upstream switches them off and leaves torch on the way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_LEAVING = (Tensor.detach, Tensor.numpy, Tensor.__array__)
_ROOTS = (torch.sqrt, Tensor.sqrt)


class KeepGradients(TorchFunctionMode):
    """While it lasts, gradients stay on, and tensors that leave autograd are recorded.

    left : the tensors with a gradient that were detached or made numpy arrays, in that order
    """

    def __init__(self) -> None:
        super().__init__()
        self.left: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch._C._set_grad_enabled:
            return None  # what `torch.no_grad` does on the way in and out
        if func in _LEAVING and args[0].requires_grad:
            self.left.append(args[0])
            args = (Tensor.detach(args[0]), *args[1:])
        if func in _ROOTS and not kwargs and args[0].requires_grad:
            return _root(args[0])
        return func(*args, **(kwargs or {}))


def _root(x: Tensor) -> Tensor:
    """The square root, whose derivative at 0 is taken to be 0.

    torch has infinity there, and NaN after it. Deviations of constant or single values are 0.
    """
    zero = x.detach() == 0
    return torch.where(zero, x.detach(), x.masked_fill(zero, 1).sqrt())
