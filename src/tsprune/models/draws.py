"""Common random numbers for sampling models: a window always gets the same ones.

Every window has a stream of uniform numbers of its own, made from a seed and its values, and every
draw is a smooth function of them (an inverse distribution function where there is one). So a window
is sampled alike in any batch, and the paths of an ablated and of an unablated model differ by what
the ablation does, not by luck. torch's global generator is neither read nor advanced.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tsprune.errors import TspruneError
from tsprune.models.sampled_mixtures import negative_binomial_counts
from tsprune.models.sampled_paths import drawn_uniform, stream_seed

Changed = TypeVar("Changed")
_KEPT_BYTES = 2**24  # the most that is kept of one batch


class Noise:
    """Uniform numbers for a batch of windows; each call goes on in every window's stream.

    contexts : the B windows' values
    """

    def __init__(self, contexts: Sequence[NDArray[np.float32]], seed: int) -> None:
        self._seeds = tuple(stream_seed(context, seed) for context in contexts)
        self._streams: list[np.random.Generator] = []  # made when numbers after the first are asked for
        self._begun: tuple[int, ...] | None = None  # the shape of the first numbers

    @property
    def windows(self) -> int:
        """How many windows there are, B."""
        return len(self._seeds)

    def require_used(self, upstream: str) -> None:
        """TspruneError if nothing was drawn: `upstream` then drew unpaired numbers in another way."""
        if self._begun is None:
            raise TspruneError(
                f"this version of {upstream} draws random numbers in another way than the tested one; "
                "its forecasts under an ablation would not be paired with those without"
            )

    def uniform(self, *shape: int) -> Tensor:
        """float64 [B, *shape], inside (0, 1); not to be written to."""
        return self.changed(_unchanged, *shape)

    def changed(self, change: Callable[[Tensor], Changed], *shape: int) -> Changed:
        """`change` of float64 [B, *shape], inside (0, 1); not to be written to.

        change : one and the same function at every call, since its results are kept by it
        """
        if self._begun is None:
            self._begun = shape
            kept = len(self._seeds) * math.prod(shape) * 8 <= _KEPT_BYTES
            first: Changed = (_first_kept if kept else _first)(self._seeds, shape, change)
            return first
        if not self._streams:
            self._streams = _streams(self._seeds, after=math.prod(self._begun))
        return change(_drawn(self._streams, shape))


def _unchanged(numbers: Tensor) -> Tensor:
    return numbers


def _streams(seeds: Sequence[tuple[int, int]], after: int = 0) -> list[np.random.Generator]:
    """A generator for each seed, `after` so many numbers."""
    return [np.random.Generator(np.random.PCG64(seed).advance(after)) for seed in seeds]


def _drawn(streams: Sequence[np.random.Generator], shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(drawn_uniform(streams, shape))


def _first(seeds: Sequence[tuple[int, int]], shape: tuple[int, ...], change: Callable[[Tensor], Any]) -> Any:
    return change(_drawn(_streams(seeds), shape))


_first_kept = functools.lru_cache(maxsize=8)(_first)  # a sweep forecasts the same few batches over and over


def categorical(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Indices [..., N] drawn with `probabilities` [..., K] by `uniform` [..., N].

    They mean nothing where a probability is NaN: the caller must know where that is.
    """
    cumulative = probabilities.double().cumsum(-1)
    threshold = uniform.to(cumulative) * cumulative[..., -1:]
    # never an index of probability zero, even if the last sums are rounded
    return torch.searchsorted(cumulative, threshold.contiguous()).clamp_max(probabilities.shape[-1] - 1)


def normal(location: Tensor, scale: Tensor, uniform: Tensor) -> Tensor:
    """Normal draws, in the dtype of `location`."""
    standard: Tensor = torch.special.ndtri(uniform).to(location)
    return location + scale * standard


def polar(radius: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Two uniform numbers as `student_t` takes them: logarithm of the radius, cosine of the angle."""
    return torch.log(radius), torch.cos(2 * torch.pi * angle)


def student_t(freedom: Tensor, location: Tensor, scale: Tensor, log_radius: Tensor, cosine: Tensor) -> Tensor:
    """Student-t draws from two `polar` numbers each, by Bailey's polar method (exact for any df)."""
    power = freedom.double()
    # u^(-2/df) - 1 without cancellation for large df
    spread = torch.expm1(-2 / power * log_radius)
    standard = torch.sqrt(power * spread) * cosine
    return location + scale * standard.to(location)


def negative_binomial(count: Tensor, logits: Tensor, rate: Tensor, number: Tensor) -> Tensor:
    """Poisson draws whose rate is a Gamma draw (shape `count`, scale exp(`logits`)), as upstream's."""
    numbers = (x.double().numpy(force=True) for x in (count, logits, rate, number))
    return torch.from_numpy(negative_binomial_counts(*numbers)).to(logits)


class CategoricalDraws(TorchFunctionMode):
    """While it lasts, torch.multinomial draws one index per row from `noise`.

    Rows [B * samples, K] are window-major. Everything else is left alone.
    """

    def __init__(self, noise: Noise, samples: int) -> None:
        super().__init__()
        self._noise = noise
        self._samples = samples

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.multinomial:
            uniform = self._noise.uniform(self._samples).flatten()
            return categorical(args[0], uniform.to(args[0].device)[:, None])
        return func(*args, **(kwargs or {}))


class TokenDraws(CategoricalDraws):
    """Draws of tokens from the most likely ones, as transformers' `generate` does with top_k.

    Its TopKLogitsWarper has torch.topk sort the most likely tokens and wants the least likely of them:
    here that one is found without sorting, which took more than the draw itself.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.topk and len(args) == 2 and not kwargs:
            scores, count = args
            if scores.device.type == "cpu" and scores.dtype == torch.float32:
                return (least_of_largest(scores, count),)
        return super().__torch_function__(func, types, args, kwargs)


def least_of_largest(scores: Tensor, count: int) -> Tensor:
    """The last of the `count` largest of float32 `scores` [..., K] in descending order, [..., 1]."""
    place = scores.shape[-1] - count
    found = np.partition(scores.numpy(force=True), place, axis=-1)[..., place : place + 1]
    return torch.from_numpy(np.ascontiguousarray(found))
