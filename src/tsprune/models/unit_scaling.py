"""Unit scaling (Blake et al., arXiv 2303.11257): its backward pass is not the derivative of the forward pass.

Upstream's layers scale activations in the forward pass and gradients in the backward pass by different
constants, so that both keep unit variance in training. Attributions and estimates of effects need the
derivative.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from dd_unit_scaling import Linear, PerDimScale, RMSNorm, scale
from torch import Tensor, nn
from unit_scaling import scale as first_scale

_SCALES = scale, first_scale  # upstream's layers call functions of both packages
_lock, _entered, _exact = threading.Lock(), 0, 0


class _Products:
    """In place of upstream's function of a tensor, a forward and a backward scale."""

    def __init__(self, upstream: Any) -> None:
        self._upstream = upstream

    def apply(self, x: Tensor, forward: float | Tensor, backward: float | Tensor) -> Tensor:
        if torch.is_grad_enabled() and not _exact:
            return self._upstream.apply(x, forward, backward)  # type: ignore[no-any-return]
        return forward * x  # also by 1: bits of products depend on how a tensor lies in memory


_upstream = [module._ScaledGrad for module in _SCALES]
_products = [_Products(function) for function in _upstream]


@contextmanager
def quick_scales() -> Iterator[None]:
    """While it lasts, in any thread, scaling is a product where no gradient is asked for.

    The results are the same to the last bit. torch inspects the signature of upstream's function at each
    of its calls, which takes over half of the time of a small model.
    """
    with _swapped(exact=False):
        yield


@contextmanager
def exact_gradients() -> Iterator[None]:
    """While it lasts, in any thread, the gradients of what is computed are its derivatives.

    The results are the same to the last bit.
    """
    with _swapped(exact=True):
        yield


@contextmanager
def _swapped(*, exact: bool) -> Iterator[None]:
    global _entered, _exact
    with _lock:
        _entered, _exact = _entered + 1, _exact + exact
        for module, function in zip(_SCALES, _products, strict=True):
            module._ScaledGrad = function
    try:
        yield
    finally:
        with _lock:
            _entered, _exact = _entered - 1, _exact - exact
            if not _entered:
                for module, function in zip(_SCALES, _upstream, strict=True):
                    module._ScaledGrad = function


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


def use_plain_layers(network: nn.Module) -> None:
    """Replaces the unit-scaled layers of `network` by torch's, which compute the same.

    Upstream's compute the scales of gradients, too, from the number of rows, which a graph leaves open.
    """
    for path, layer in list(network.named_modules()):
        if isinstance(layer, Linear):
            network.set_submodule(path, _plain_linear(layer))
        elif isinstance(layer, RMSNorm):
            plain = nn.RMSNorm(layer.dim, layer.eps, layer.weight is not None)
            plain.weight = layer.weight
            network.set_submodule(path, plain)
        elif isinstance(layer, PerDimScale):
            factor = nn.functional.softplus(layer.per_dim_scale.detach()) / math.log(2)
            network.set_submodule(path, _Scaled(factor))


def _plain_linear(layer: Linear) -> nn.Linear:
    factor = layer.weight.shape[1] ** -layer.scale_power[0]
    plain = nn.Linear(1, 1, bias=layer.bias is not None, device="meta")
    for name, values in layer.named_parameters():
        setattr(plain, name, nn.Parameter(values.detach() * factor, requires_grad=False))
    return plain


class _Scaled(nn.Module):
    factor: Tensor

    def __init__(self, factor: Tensor) -> None:
        super().__init__()
        self.register_buffer("factor", factor)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor
