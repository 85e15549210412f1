"""Attention over the series of a group, for a series that is a group of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from tsprune.anatomy import Anatomy, AttentionSite, Projection


class AloneInGroup(nn.Module):
    """In place of attention over series. Its only weight is 1, so the output is that of the only value.

    Upstream computes the same, with the pairs of series of a batch, whose weights are 0.

    returns : makes of the output what upstream's module returns
    """

    is_time = False  # by which Timestral chooses a mask

    def __init__(self, network: nn.Module, site: AttentionSite, returns: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.value = _in_order_of_output(network, site, site.value)
        self.gate = None if site.gate is None else _in_order_of_output(network, site, site.gate)
        self.output = network.get_submodule(site.output)
        self.returns = returns

    def forward(self, hidden: Tensor, *_: Any, **__: Any) -> Any:
        value = self.value(hidden)
        if self.gate is not None:
            value = value * self.gate(hidden).sigmoid()
        return self.returns(self.output(value))


def alone_in_groups(
    network: nn.Module, anatomy: Anatomy, returns: Callable[[Tensor], Any] = lambda output: output
) -> None:
    """Replaces the attention over series in `network`, whose input then has one series per group."""
    for _, site in anatomy.sites():
        if site.axis == "series" and site.heads:
            network.set_submodule(site.module, AloneInGroup(network, site, returns))


def _in_order_of_output(network: nn.Module, site: AttentionSite, part: Projection) -> nn.Module:
    """The layer of a projection, with the rows of each head where the columns of `output` expect them."""
    layer = network.get_submodule(part.module)
    rows = [row for head in range(site.heads) for row in part.rows(head * part.heads // site.heads)]
    found = copy.copy(layer)  # of upstream's class, which may scale the product
    found._parameters = {
        name: None if values is None else nn.Parameter(values[rows], requires_grad=False)
        for name, values in layer._parameters.items()
    }
    return found
