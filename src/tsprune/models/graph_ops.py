"""Operations of exported graphs, in terms that ONNX has: no loop over time, no cumulative maximum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from tsprune.errors import TspruneError

if TYPE_CHECKING:
    from tsprune.models.forecaster import Forecaster

__all__ = [
    "MOST_ROWS",
    "bounded",
    "causal_mask",
    "causal_moments",
    "empirical_quantiles",
    "filled_forward",
    "require_one_pass",
    "running_moments",
    "without_gaps",
]

MOST_ROWS = 2**16  # series in a batch


def require_one_pass(model: Forecaster, horizon: int) -> None:
    """Raises TspruneError for a horizon beyond one pass, of a family whose graph is that of one."""
    if horizon > model.readout_horizon:
        raise TspruneError(
            f"{model.name} is exported for one pass, up to {model.readout_horizon} steps, not {horizon}"
        )


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
    places = _places(series)
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


def filled_forward(series: Tensor, longest: int) -> Tensor:
    """[B, T] with missing values as the last one before them; 0 in front of the first one.

    longest : an upper limit of T
    """
    before = _carried(torch.where(torch.isnan(series), -1.0, _places(series)), longest)
    filled = torch.gather(torch.nan_to_num(series, nan=0.0), 1, before.clamp(min=0).long())
    return torch.where(before < 0, 0.0, filled)


def _places(series: Tensor) -> Tensor:
    return torch.cumsum(torch.ones_like(series), dim=1) - 1


def bounded(quantiles: Tensor, values: Tensor, known: Tensor, reach: Tensor) -> Tensor:
    """Quantiles no further than `reach` [B, 1, 1], which fits their shape, from known values [B, T]."""
    low = torch.where(known, values, torch.inf).amin(dim=1)[:, None, None] - reach
    high = torch.where(known, values, -torch.inf).amax(dim=1)[:, None, None] + reach
    return torch.minimum(torch.maximum(quantiles, low), high)


def causal_moments(values: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of the known values up to each step, [B, T] each (Welford 1962, one value less).

    Sums are in double precision, as those of torch on a CPU; the rest is in that of `values`.
    """
    weight = known.to(values.dtype)
    count = _summed(weight).clamp(min=1)
    mean = _summed(torch.where(known, values, 0.0)) / count
    before = functional.pad(mean[:, :-1], (1, 0))
    squares = _summed((values - before) * (values - mean) * weight).clamp(min=0)
    return mean, squares / (count - 1).clamp(min=1)


def _summed(values: Tensor) -> Tensor:
    return values.to(torch.float64).cumsum(dim=1).to(values.dtype)


def running_moments(patches: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of all values up to each patch, [B, N] each, of patches [B, N, P].

    The variance is that within patches and that between their means, so that nothing large cancels.
    """
    seen = (~masks).to(patches.dtype)
    count = seen.sum(dim=-1)
    safe = torch.where(count == 0, 1.0, count)
    mean = (patches * seen).sum(dim=-1) / safe
    within = ((patches - mean[..., None]).square() * seen).sum(dim=-1)
    total = count.cumsum(dim=1)
    total_safe = torch.where(total == 0, 1.0, total)
    running = (count * mean).cumsum(dim=1) / total_safe
    earlier = torch.ones_like(count[:, :, None] * count[:, None]).tril()
    between = (earlier * count[:, None] * (mean[:, None] - running[:, :, None]).square()).sum(dim=-1)
    return running, ((within.cumsum(dim=1) + between) / total_safe).sqrt()


def causal_mask(keys: Tensor) -> Tensor:
    """Which keys each position sees, bool [B, 1, N, N]: those of `keys` [B, N] up to it, and itself.

    So no row is empty, whose softmax would be NaN in ONNX.
    """
    place = torch.arange(keys.shape[1])
    earlier, same = place <= place[:, None], place == place[:, None]
    return ((keys[:, None] & earlier) | same)[:, None]


def _carried(values: Tensor, longest: int) -> Tensor:
    """The cumulative maximum along the rows of [B, T]: each step doubles the width that a value reaches."""
    width = 1
    while width < longest:
        shifted = functional.pad(values, (width, 0), value=-torch.inf)[:, : values.shape[1]]
        values = torch.maximum(values, shifted)
        width *= 2
    return values
