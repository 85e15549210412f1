"""Gradients through a forecast, although upstream pipelines switch them off and leave torch at the end."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_LEAVING = (Tensor.detach, Tensor.numpy, Tensor.__array__)


class Gradients(TorchFunctionMode):
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
        return func(*args, **(kwargs or {}))
