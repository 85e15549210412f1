"""Sampling of a whole horizon in one pass, as Moirai 1.1 does it, in numpy, for exported models."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tsprune.models.contexts import padded
from tsprune.models.sampled_mixtures import PARAMETERS, mixture_draws
from tsprune.models.sampled_paths import Floats, Graph, PathSampling, drawn_uniform

_ROWS = 1024  # paths that are drawn together


class History(NamedTuple):
    """Values so far, 0 where one is missing, and which are known, [B, T]; which patches are real, and the
    time of each, [B, N]."""

    values: Floats
    known: NDArray[np.bool_]
    real: NDArray[np.bool_]
    time: NDArray[np.int64]

    def rows(self, chosen: slice | NDArray[np.int64]) -> History:
        """Those of some rows."""
        return History(self.values[chosen], self.known[chosen], self.real[chosen], self.time[chosen])


@dataclasses.dataclass(frozen=True)
class HorizonSampling(PathSampling):
    """How the paths of a horizon are drawn: every step from a mixture of its own.

    patch : steps of a token
    components : of the mixture, from `PARAMETERS`
    scales : whether series are standardised
    correction, least_variance : the variance is a sum divided by this many less than there are values, and
        this much is added to it
    """

    kind: ClassVar[str] = "horizon"
    patch: int
    components: tuple[str, ...]
    scales: bool
    correction: int
    least_variance: float

    def counts(self) -> tuple[int, ...]:
        return self.patch, len(self.components)

    def problem(self) -> str:
        return "" if set(self.components) <= set(PARAMETERS) else "the distributions"

    def together(self, horizon: int) -> int:
        return max(1, _ROWS // self.samples)

    def paths(self, series: Sequence[Floats], horizon: int, encode: Graph, step: Graph) -> Floats:
        tokens, history = -(-horizon // self.patch), self.history(series)
        patches, location, scale = self.patches(history)
        weights, parameters = encode(patches, history.real, history.time, np.zeros(tokens, np.float32))
        numbers = drawn_uniform(self.streams(series), (self.samples, tokens * self.patch, 3))
        found = mixture_draws(self.components, weights[:, None], parameters[:, None], numbers)
        paths: Floats = found * scale[:, None] + location[:, None]
        return paths[..., :horizon]

    def history(self, series: Sequence[Floats]) -> History:
        """B series as whole patches, right-aligned."""
        values = padded(series, self.patch)
        known = np.isfinite(values)
        begun = np.arange(values.shape[1]) >= values.shape[1] - np.array([len(x) for x in series])[:, None]
        seen, real = (x.reshape(len(series), -1, self.patch).any(axis=2) for x in (known, begun))
        time = np.maximum(np.maximum.accumulate(seen, axis=1).cumsum(axis=1) - 1, 0)
        filled = np.where(known, values, np.float32(0))
        return History(filled, known, np.asarray(real, np.bool_), time.astype(np.int64))

    def patches(self, history: History) -> tuple[Floats, Floats, Floats]:
        """Scaled patches [B, N, P], location and scale [B, 1]."""
        location, scale = self.scaled(history.values, history.known)
        real = np.repeat(history.real, self.patch, axis=1)
        scaled = np.where(real, (history.values - location) / scale, np.float32(0))
        return scaled.reshape(*history.real.shape, -1), location, scale

    def scaled(self, values: Floats, known: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """Location and scale [B, 1] of the known ones of values [B, T]."""
        if not self.scales:
            return np.zeros((len(values), 1), np.float32), np.ones((len(values), 1), np.float32)
        count = known.sum(axis=1, keepdims=True)
        location = np.where(known, values.astype(np.float64), 0).sum(axis=1, keepdims=True) / _safe(count)
        squares = np.where(known, np.square(values - location), 0).sum(axis=1, keepdims=True)
        variance = squares / _safe(count - self.correction)
        return location.astype(np.float32), np.sqrt(variance + self.least_variance).astype(np.float32)


def _safe(count: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.where(count == 0, 1, count)
