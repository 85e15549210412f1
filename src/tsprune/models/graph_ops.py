"""Operations of exported graphs, in terms that ONNX has: no loop over time, no cumulative maximum."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["empirical_quantiles", "without_gaps"]


def empirical_quantiles(values: Tensor, levels: Sequence[float]) -> Tensor:
    """Quantiles [B, Q, H] of N values each [B, N, H], between neighbours linear as `torch.quantile`."""
    ordered = torch.sort(values, dim=1).values
    places = torch.tensor(levels, dtype=torch.float32) * (values.shape[1] - 1)
    below = places.floor()
    share = (places - below)[None, :, None]
    lower, upper = ordered[:, below.long()], ordered[:, places.ceil().long()]
    return lower + (upper - lower) * share


def without_gaps(series: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """Missing values of [B, T] between observed ones, linear; those after the last one are as the last one.

    longest : an upper limit of T

    Returns the series, 0 in front of the first observed value, and where that is: bool [B, T].
    """
    observed = ~torch.isnan(series)
    places = torch.cumsum(torch.ones_like(series), dim=1) - 1
    before = _carried(torch.where(observed, places, -1.0), longest)
    front = before < 0
    after = _carried(torch.where(observed, -places, -torch.inf).flip(1), longest).flip(1).neg()
    last = torch.isinf(after)
    known = torch.nan_to_num(series, nan=0.0)
    left = torch.gather(known, 1, before.clamp(min=0).long())
    right = torch.gather(known, 1, torch.where(last, before.clamp(min=0), after).long())
    width = torch.where(last, 1.0, after - before)
    share = (places - before) / torch.where(width == 0, 1.0, width)
    between = left + (right - left) * share
    return torch.where(front, 0.0, torch.where(observed, known, between)), front


def _carried(values: Tensor, longest: int) -> Tensor:
    """The cumulative maximum along the rows of [B, T]: each step doubles the width that a value reaches."""
    width = 1
    while width < longest:
        shifted = functional.pad(values, (width, 0), value=-torch.inf)[:, : values.shape[1]]
        values = torch.maximum(values, shifted)
        width *= 2
    return values
