"""Kinds of supervision that the laboratory compares, written once for every family that takes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

LEVELS = torch.arange(1, 10) / 10
FREEDOM = 4.0  # degrees of freedom of the Student-t, fixed
_T_QUANTILES = torch.tensor(stats.t.ppf(np.arange(1, 10) / 10, FREEDOM), dtype=torch.float32)
_SOFTNESS = 0.02  # deviations of the history at which a scale stops to follow the network's

Loss = Literal["quantile", "squared-error", "student-t"]
Criterion = Callable[[Tensor, Tensor], Tensor]


@dataclasses.dataclass(frozen=True)
class Supervision:
    """What a model is trained to do.

    loss : of the nine quantile outputs
    positions : "every" patch predicts what follows it, or the "last" one alone
    layer_dropout : probability that a window skips a block, drawn for each block and window
    parroting_penalty : weight of the excess parroting of the last forecast
    shuffled : targets are those of another window: nothing can be learnt of them but how they spread
    """

    loss: Loss = "quantile"
    positions: Literal["every", "last"] = "every"
    layer_dropout: float = 0.0
    parroting_penalty: float = 0.0
    shuffled: bool = False

    def position_weights(self, positions: int) -> Tensor:
        """Weight of each position's loss, [positions]; their mean is close to one."""
        if self.positions == "last":
            weights = torch.zeros(positions)
            weights[-1] = positions
            return weights
        weights = torch.ones(positions)
        weights[:1] = 0.5  # one patch of history tells little
        return weights


QUANTILES_EVERYWHERE = Supervision()


def criterion(loss: Loss) -> Criterion:
    """A loss of (quantiles [..., 9], target [...]) -> [...]."""
    return {"quantile": pinball, "squared-error": squared_error, "student-t": negative_log_likelihood}[loss]


def pinball(quantiles: Tensor, target: Tensor) -> Tensor:
    """Twice the quantile loss, the mean over levels: (quantiles [..., 9], target [...]) -> [...].

    The target has no gradient.
    """
    found: Tensor = _Pinball.apply(quantiles, target)
    return found


class _Pinball(torch.autograd.Function):
    """The loss with its gradient by hand: autograd's takes a fifth of a small model's step."""

    @staticmethod
    def forward(ctx: Any, quantiles: Tensor, target: Tensor) -> Tensor:
        error = target[..., None] - quantiles
        weights = _slopes(error)
        ctx.save_for_backward(weights)
        ctx.dtype = quantiles.dtype
        return 2 * error.mul_(weights).mean(-1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (weights,) = ctx.saved_tensors
        each = -(gradient * 2 / torch.tensor(float(weights.shape[-1])))
        return (weights * each[..., None]).to(ctx.dtype), None


def _slopes(error: Tensor) -> Tensor:
    """Of the loss in the error, [..., 9]; one of its two sides' where the error is zero."""
    if not error.is_contiguous() or error.ndim < 2:
        return torch.where(error > 0, LEVELS, LEVELS - 1)
    rows = error.flatten(-2)  # loops over nine values are slow
    levels = LEVELS.repeat(error.shape[-2])
    return torch.where(rows > 0, levels, levels - 1).view_as(error)


def squared_error(quantiles: Tensor, target: Tensor) -> Tensor:
    """Every output is the mean: such a model knows no spread."""
    return (quantiles - target[..., None]).square().mean(-1)


def negative_log_likelihood(quantiles: Tensor, target: Tensor) -> Tensor:
    """Of a Student-t with fixed freedom, whose location and scale are those of the nine outputs.

    Outputs are read as quantiles: location and scale are their least-squares fit on the standard
    quantiles, a linear map, so `as_student_t` can put it into the readout. A scale is kept above zero.
    """
    location, raw = _location_and_scale(quantiles)
    scale = (raw + (raw.square() + 4 * _SOFTNESS**2).sqrt()) / 2
    square = ((target - location) / scale).square()
    return scale.log() + (FREEDOM + 1) / 2 * torch.log1p(square / FREEDOM)


def as_student_t(outputs: Tensor) -> Tensor:
    """Nine outputs, or rows of a readout that give them, [..., 9], replaced by those of their Student-t."""
    location, scale = _location_and_scale(outputs)
    return location[..., None] + scale[..., None] * _T_QUANTILES


def _location_and_scale(outputs: Tensor) -> tuple[Tensor, Tensor]:
    # the standard quantiles sum to zero, so both fits are apart
    return outputs.mean(-1), (outputs * _T_QUANTILES).sum(-1) / _T_QUANTILES.square().sum()


def excess_parroting(forecast: Tensor, target: Tensor, history: Tensor) -> Tensor:
    """How much more like a part of the history a forecast is than the truth, [B], at least zero.

    The likeness of [B, H] to [B, T] is the highest Pearson correlation with any H successive steps.
    """
    windows = _standard(history.unfold(1, target.shape[-1], 1))  # [B, T - H + 1, H]

    def likeness(values: Tensor) -> Tensor:
        return (windows @ _standard(values)[..., None]).squeeze(-1).amax(-1)

    return nn.functional.relu(likeness(forecast) - likeness(target))


def _standard(values: Tensor) -> Tensor:
    """Centred, of unit length along the last axis; a constant stays zero."""
    centred = values - values.mean(-1, keepdim=True)
    return centred / centred.square().sum(-1, keepdim=True).clamp_min(1e-6).sqrt()


@contextmanager
def layer_dropout(blocks: Iterable[nn.Module], share: float, step: int) -> Iterator[None]:
    """Within it, windows skip blocks at random: such a block returns the stream that it was given.

    blocks : modules whose first argument and (first) result are the stream, [B, ...]
    share : probability of skipping; drawn by `step`, so a resumed run draws the same
    """
    if not share:
        yield
        return
    rng = np.random.default_rng([step, 23])

    def hook(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        before, after = args[0], output[0] if isinstance(output, tuple) else output
        kept = torch.from_numpy(rng.random(len(before)) >= share).view(-1, *[1] * (before.ndim - 1))
        stream = torch.where(kept, after, before)
        return (stream, *output[1:]) if isinstance(output, tuple) else stream

    with ExitStack() as stack:
        for block in blocks:
            stack.callback(block.register_forward_hook(hook).remove)
        yield
