"""TimesFM 2.5 as one graph from contexts to quantiles, for export."""

from __future__ import annotations

from typing import Any

import torch
from timesfm.torch.transformer import MultiHeadAttention, _dot_product_attention
from timesfm.torch.util import revin
from torch import Tensor, nn
from torch.nn import functional

from tsprune.models.copies import network_copy
from tsprune.models.graph_ops import running_moments, without_gaps
from tsprune.models.timesfm import TimesFM

_MEDIAN = 5  # of the outputs: the mean, then the quantiles 0.1 to 0.9


class TimesFMGraph(nn.Module):
    """Contexts [B, T], NaN where a value is missing, to quantiles [B, 9, horizon].

    Upstream's settings are those of `TimesFM.settings`. Its loops over patches are written as sums, and
    each pass after the first computes the whole sequence again, in place of a cache.

    Beyond the steps of the quantile head, upstream forecasts without it. A graph of such a horizon has a
    second input, of one number for each `future_span` steps: one number says that the head is used.
    """

    fills_gaps = True  # also from values before the history that it keeps

    def __init__(self, model: TimesFM, horizon: int) -> None:
        super().__init__()
        self.network: Any = network_copy(model.module)
        for module in self.network.modules():
            if isinstance(module, MultiHeadAttention):
                module.attention_fn = _dot_product_attention  # rows without a key stay finite
        for readout in ("output_projection_point", "output_projection_quantiles"):
            setattr(self.network, readout, _OfLast(getattr(self.network, readout)))
        self.horizon = horizon
        self.longest = -(-model.context_length // model.module.p) * model.module.p

        self.future_span = model.module.os if horizon > model.module.os else 0

    def forward(self, context: Tensor, future: Tensor | None = None) -> Tensor:
        series, front = without_gaps(context, self.longest)
        positive = (series >= 0).all(dim=-1)[:, None, None]
        mean, deviation = series.mean(dim=-1, keepdim=True), series.std(dim=-1, keepdim=True)
        normed = revin(series, mean, deviation)
        count = context.shape[0]
        steps, spread = self._decoded(torch.cat([normed, -normed]), torch.cat([front, front]))
        steps = (steps[:count] - _flipped(steps[count:])) / 2
        spread = (spread[:count] - _flipped(spread[count:])) / 2
        middle = steps[..., _MEDIAN : _MEDIAN + 1]
        wide = spread - spread[..., _MEDIAN : _MEDIAN + 1] + middle[:, : spread.shape[1]]
        by_head = torch.arange(wide.shape[-1]) != _MEDIAN
        if future is not None:
            wide = functional.pad(wide, (0, 0, 0, steps.shape[1] - wide.shape[1]))
            by_head = by_head & (torch.ones_like(future).sum() < 2)
        steps = torch.where(by_head, wide, steps)
        steps = revin(_in_order(steps), mean, deviation, reverse=True)
        return torch.where(positive, steps.clamp(min=0), steps).transpose(1, 2)

    def _decoded(self, series: Tensor, front: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and quantiles of the next steps, [B, horizon, 10], and those of the wide head."""
        network = self.network
        patches, masks = series.unflatten(1, (-1, network.p)), front.unflatten(1, (-1, network.p))
        steps: list[Tensor] = []
        spread = series
        for number in range(-(-self.horizon // network.o)):
            mean, deviation = running_moments(patches, masks)
            normed = torch.where(masks, 0.0, revin(patches, mean, deviation))
            (_, _, output, wide), _ = network(normed, masks)
            last = mean[:, -1:], deviation[:, -1:]
            step = revin(output, *last, reverse=True).unflatten(1, (network.o, network.q))
            steps.append(step)
            if number == 0:
                spread = revin(wide, *last, reverse=True).unflatten(1, (network.os, network.q))
            more = step[..., network.aridx].unflatten(1, (network.m, network.p))
            patches = torch.cat([patches, more], dim=1)
            masks = torch.cat([masks, torch.zeros_like(more, dtype=torch.bool)], dim=1)
        return torch.cat(steps, dim=1)[:, : self.horizon], spread[:, : self.horizon]


class _OfLast(nn.Module):
    """A readout of the last position, the only one that a forecast needs; upstream reads all of them."""

    def __init__(self, readout: nn.Module) -> None:
        super().__init__()
        self.readout = readout

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, N, d_model] to [B, outputs]."""
        return self.readout(hidden[:, -1])  # type: ignore[no-any-return]


def _flipped(output: Tensor) -> Tensor:
    """The quantiles of the negative series as those of the series, but for their sign."""
    return torch.cat([output[..., :1], output[..., 1:].flip(-1)], dim=-1)


def _in_order(output: Tensor) -> Tensor:
    """The nine quantiles of [..., 10], each no further from the median than the next one."""
    levels = list(output[..., 1:].unbind(-1))
    middle = _MEDIAN - 1
    for place in range(middle - 1, -1, -1):
        levels[place] = torch.minimum(levels[place], levels[place + 1])
    for place in range(middle + 1, len(levels)):
        levels[place] = torch.maximum(levels[place], levels[place - 1])
    return torch.stack(levels, dim=-1)
