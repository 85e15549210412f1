"""Forecasters that only copy: what a model must beat to do more than attend to its past.

Context parroting (Zhang & Gilpin, arXiv 2505.11349) copies what followed the motif most like the last one;
Nadaraya-Watson regression, which softmax attention is an instance of, averages over all motifs.
Both take the place of a model in `tsprune.evaluate`.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tsprune.arguments import checked
from tsprune.errors import TspruneError
from tsprune.explain.forecast_traits import filled
from tsprune.models.contexts import checked_contexts
from tsprune.models.forecaster import LEVELS, Forecast

MOTIF = 10
BANDWIDTH = 0.1
CONTEXT = 2048

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class _Motifs(abc.ABC):
    """What both have in common; `motif` steps are compared, of the last `context_length`."""

    motif: int = MOTIF
    context_length: int = CONTEXT

    def __post_init__(self) -> None:
        if self.motif < 1 or self.context_length < 2:
            raise TspruneError("a motif needs 1 step or more, and a context length 2 or more")

    @property
    @abc.abstractmethod
    def name(self) -> str: ...

    @abc.abstractmethod
    def _weights(self, squares: Floats, variance: float) -> Floats:
        """Of motifs at mean squared distances `squares` [M]; `variance` of the context."""

    def forecast(self, contexts: Sequence[ArrayLike], horizon: int) -> Forecast:
        """Forecasts B series: quantiles of what followed their motifs, weighted.

        Gaps are filled linearly. A copy that reaches the end of the history goes on in itself. A
        history shorter than the motif is compared by shorter motifs; of one step, it is repeated.
        """
        series = [filled(x[-self.context_length :]) for x in checked_contexts(contexts, horizon)]
        quantiles = np.stack([self._quantiles(x, horizon) for x in series])
        return Forecast(quantiles.astype(np.float32), LEVELS)

    def _quantiles(self, x: Floats, horizon: int) -> Floats:
        if len(x) == 1:
            return np.full((len(LEVELS), horizon), x[0])
        length = min(self.motif, len(x) - 1)
        squares = motif_distances(x, length)
        weights = self._weights(squares, float(x.var()))
        starts = length + np.flatnonzero(weights)
        return weighted_quantiles(followers(x, starts, horizon), weights[weights > 0])


def motif_distances(x: Floats, length: int) -> Floats:
    """Mean squared distance of every earlier motif to the last `length` steps of x [T], [T - length]."""
    motifs = np.lib.stride_tricks.sliding_window_view(x, length)
    return np.asarray(np.square(motifs[:-1] - motifs[-1]).mean(axis=1))


def followers(x: Floats, starts: NDArray[np.int64], horizon: int) -> Floats:
    """x from each of `starts` [M] on, [M, horizon]; what reaches the end of x repeats itself."""
    left = (len(x) - starts)[:, None]
    return np.asarray(x[starts[:, None] + np.arange(horizon) % left])


def weighted_quantiles(values: Floats, weights: Floats) -> Floats:
    """Quantiles [9, H] at .1, ..., .9 of `values` [M, H] with `weights` [M]: the weighted inverse CDF."""
    order = values.argsort(axis=0)
    cumulative = weights[order].cumsum(axis=0)
    cumulative /= cumulative[-1]
    ordered = np.take_along_axis(values, order, axis=0)
    index = [(cumulative < level - 1e-12).sum(axis=0) for level in LEVELS]
    return np.stack([np.take_along_axis(ordered, at[None], axis=0)[0] for at in index])


class Parrot(_Motifs):
    """Copies what followed the past motif nearest to the last one (the latest of equals)."""

    @property
    def name(self) -> str:
        return f"parrot (motif of {self.motif})"

    def _weights(self, squares: Floats, variance: float) -> Floats:
        nearest = np.flatnonzero(squares <= squares.min() + 1e-12 * variance)[-1]
        return np.asarray(np.arange(len(squares)) == nearest, dtype=np.float64)


@dataclasses.dataclass(frozen=True)
class NadarayaWatson(_Motifs):
    """Weighs what followed each past motif by a Gaussian kernel of its distance to the last one.

    bandwidth : of the kernel, in standard deviations of the context, per step of the motif
    """

    bandwidth: float = BANDWIDTH

    @property
    def name(self) -> str:
        return f"nadaraya-watson (motif of {self.motif}, bandwidth {self.bandwidth:g})"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.bandwidth > 0:
            raise TspruneError(f"the bandwidth must be above 0, not {self.bandwidth}")

    def _weights(self, squares: Floats, variance: float) -> Floats:
        scale = 2 * self.bandwidth**2 * variance
        if scale == 0:
            return np.ones(len(squares))
        weights: Floats = np.exp(-(squares - squares.min()) / scale)
        return weights


@checked
def parrot(motif: int = MOTIF, *, context_length: int = CONTEXT) -> Parrot:
    """Context parroting as a forecaster: `tsprune.evaluate(explain.parrot(), suite)`.

    Raises TspruneError for a motif without steps.
    """
    return Parrot(motif, context_length)


@checked
def nadaraya_watson(
    motif: int = MOTIF, *, bandwidth: float = BANDWIDTH, context_length: int = CONTEXT
) -> NadarayaWatson:
    """Nadaraya-Watson regression over motifs, as a forecaster (see `NadarayaWatson`).

    Raises TspruneError for a bandwidth that is not positive or a motif without steps.
    """
    return NadarayaWatson(motif, context_length, bandwidth)
