"""The factors with which sublayers' outputs and the residual stream are added, where they are not 1.

A block of u-muP (Blake et al., arXiv 2407.17465) makes (tau y + x) / sqrt(1 + tau^2) of a stream x and a
sublayer's output y, with a tau of its own for every sublayer. A zero ablation leaves x / sqrt(1 + tau^2).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tsprune.anatomy import Component, Stack
from tsprune.models.forecaster import Forecaster


class Mix(NamedTuple):
    """The factors of a sublayer's output and of the stream that it is added to; 0-dimensional tensors."""

    written: Tensor
    kept: Tensor


def mixes(model: Forecaster, stack: Stack) -> dict[Component, Mix]:
    """The factors of sublayers in order of execution, from the first to the last layer that is there.

    Those of removed sublayers are among them. Empty if all factors are 1.
    """
    found = {}
    for address, path in stack.mixing:
        component = Component.parse(address)
        if stack.numbers[0] <= component.layer <= stack.numbers[-1]:
            owner, _, name = path.rpartition(".")
            tau = model.module.get_submodule(owner).get_buffer(name).detach()
            root = (1 + tau**2) ** 0.5
            found[component] = Mix(tau / root, 1 / root)
    return found


def kept_factors(model: Forecaster, stack: Stack) -> list[Tensor]:
    """Factors of the stream between each layer's output and that of the layer before it, by layer.

    Of the first layer: between its output and its input.
    """
    factors = mixes(model, stack)
    found, after = [], stack.numbers[0] - 1
    for number in stack.numbers:
        between = [mix.kept for component, mix in factors.items() if after < component.layer <= number]
        found.append(torch.stack(between).prod() if between else torch.ones(()))
        after = number
    return found


def scales(model: Forecaster, stack: Stack) -> tuple[dict[Component, Tensor], Tensor]:
    """Factors in the last layer's output: of each sublayer's output, and of the first layer's input."""
    found, later = {}, torch.ones(())
    for component, mix in reversed(mixes(model, stack).items()):
        found[component] = mix.written * later
        later = mix.kept * later
    return found, later
