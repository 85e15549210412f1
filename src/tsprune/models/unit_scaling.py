"""Unit scaling (Blake et al., arXiv 2303.11257): its backward pass is not the derivative of the forward pass.

Upstream's layers scale activations in the forward pass and gradients in the backward pass by different
constants, so that both keep unit variance in training. Attributions and estimates of effects need the
derivative.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from dd_unit_scaling import Linear, scale
from torch import Tensor, nn

_lock, _running = threading.Lock(), 0
_scaled = scale._ScaledGrad


class _Derivative:
    """In place of upstream's function of a tensor, a forward and a backward scale."""

    @staticmethod
    def apply(x: Tensor, forward: float | Tensor, _backward: float | Tensor) -> Tensor:
        # upstream scales many gradients only
        return x if isinstance(forward, float) and forward == 1 else forward * x


@contextmanager
def exact_gradients() -> Iterator[None]:
    """While it lasts, in any thread, the gradients of what is computed are its derivatives.

    The results are the same to the last bit.
    """
    global _running
    with _lock:
        _running += 1
        scale._ScaledGrad = _Derivative
    try:
        yield
    finally:
        with _lock:
            _running -= 1
            if not _running:
                scale._ScaledGrad = _scaled


def rates(module: nn.Module) -> dict[str, float]:
    """Factors of a common learning rate, by parameter, that make products change as those of plain layers.

    Adam and Muon change all weights by about the learning rate. A unit-scaled layer divides its product and
    bias by a power of its width, so its weights have to change by as much more.
    """
    found = {}
    for name, part in module.named_modules():
        if isinstance(part, Linear):
            factor = float(part.in_features ** part.scale_power[0])
            found.update({f"{name}.{own}": factor for own, _ in part.named_parameters(recurse=False)})
    return found
