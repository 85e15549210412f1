"""Unit scaling (Blake et al., arXiv 2303.11257): its backward pass is not the derivative of the forward pass.

Upstream's layers scale activations in the forward pass and gradients in the backward pass by different
constants, so that both keep unit variance in training. Attributions and estimates of effects need the
derivative.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from dd_unit_scaling import scale
from torch import Tensor

_lock, _running = threading.Lock(), 0
_scaled = scale._ScaledGrad


class _Derivative:
    """In place of upstream's function of a tensor, a forward and a backward scale."""

    @staticmethod
    def apply(x: Tensor, forward: float, _backward: float) -> Tensor:
        return forward * x


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
