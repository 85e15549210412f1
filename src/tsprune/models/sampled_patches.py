"""Sampling of patch after patch, as Toto 1.0 does it, in numpy, for exported models."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tsprune.models.contexts import padded
from tsprune.models.sampled_mixtures import PARAMETERS, mixture_draws
from tsprune.models.sampled_paths import Floats, Graph, PathSampling, drawn_uniform
from tsprune.models.variates import places_by

_Doubles = NDArray[np.float64]
_Known = NDArray[np.bool_]

_ROWS = 8192  # paths that are drawn together
_STEPWISE_ROWS = 512  # where a second patch is drawn, for which each path has keys and values of its own
_EXTREME = np.finfo(np.float32).max / 2  # upstream keeps no such draw
SCALERS = ("history", "patch", "step")


@dataclasses.dataclass(frozen=True)
class Moments:
    """Of the values so far, [..., 1] each: how many, sum, mean, and the sum of squares about it."""

    count: _Doubles
    total: _Doubles
    mean: _Doubles
    squares: _Doubles


@dataclasses.dataclass(frozen=True)
class PatchSampling(PathSampling):
    """How paths are drawn, patch by patch.

    steps : of a patch that are forecast
    patch : steps that the network reads together
    components : of the mixture, from `PARAMETERS`
    scaler : what a value is scaled by: the whole "history", or all values up to the end of its "patch", or
        up to its own "step"
    least_variance, unbiased : added to a variance, and whether that is divided by one less than the number
        of values
    bounded, exponent : whether scales stay within 10 ** exponent times, and its inverse, that of the history
    heads, head_dim : of the cache of keys and values
    """

    kind: ClassVar[str] = "patches"
    patch: int
    components: tuple[str, ...]
    scaler: str
    least_variance: float
    unbiased: bool
    bounded: bool
    exponent: float
    heads: int
    head_dim: int

    def counts(self) -> tuple[int, ...]:
        return self.patch, len(self.components), self.head_dim, self.heads + 1

    def problem(self) -> str:
        known = set(self.components) <= set(PARAMETERS) and self.scaler in SCALERS
        return "" if known else "the distributions or the scaler"

    def together(self, horizon: int) -> int:
        rows = _ROWS if horizon <= self.patch else _STEPWISE_ROWS
        return max(1, rows // self.samples)

    def paths(self, series: Sequence[Floats], horizon: int, encode: Graph, step: Graph) -> Floats:
        # the padding of shorter series would not be masked in attention
        alike = places_by(-(-len(values) // self.patch) for values in series)
        paths = np.empty((len(series), self.samples, horizon), dtype=np.float32)
        for rows in alike.values():
            paths[rows] = self._alike([series[row] for row in rows], horizon, encode, step)
        return paths

    def _alike(self, series: Sequence[Floats], horizon: int, encode: Graph, step: Graph) -> Floats:
        """Paths of series that are as many patches long."""
        values, streams, parts = padded(series, self.patch), self.streams(series), []
        known = np.isfinite(values)
        filled = np.where(known, values, np.float32(0))
        moments, place, bounds = self.of_history(filled, known)
        weights, parameters, *past = encode(self._patches(filled, place))
        weights, parameters, place = weights[:, None], parameters[:, None], place[:, :, None, -self.patch :]
        moments = Moments(*(x[:, None] for x in dataclasses.astuple(moments)))
        passes = -(-horizon // self.patch)
        shape = len(series), self.samples, self.heads, max(1, passes - 1), self.head_dim
        keys, read = np.zeros((2, *shape), dtype=np.float32)
        lost = np.zeros((len(series), self.samples, 1), dtype=np.bool_)
        for number in range(passes):
            uniform = drawn_uniform(streams, (self.samples, self.patch, 3))[:, :, : weights.shape[2]]
            patch = mixture_draws(self.components, weights, parameters, uniform)
            patch = patch * place[1][..., : patch.shape[2]] + place[0][..., : patch.shape[2]]
            extreme = ~(np.abs(patch) < _EXTREME)
            parts.append(np.where(extreme, np.float32(0), patch))
            within = slice(None, horizon - number * self.patch)
            lost |= extreme[..., within].any(axis=2, keepdims=True)
            if number + 1 < passes:
                if self.scaler != "history":
                    known = np.ones_like(extreme)
                    moments, place = self.after(moments, parts[-1], known, bounds[:, :, None])
                scaled = self._scaled(parts[-1], place)
                weights, parameters, key, value = step(scaled, np.array([number]), keys, read, *past)
                keys[..., number, :], read[..., number, :] = key, value
        paths: Floats = np.where(lost, np.float32(np.nan), np.concatenate(parts, axis=2)[..., :horizon])
        return paths

    def _patches(self, values: Floats, place: Floats) -> Floats:
        return self._scaled(values, place).reshape(len(values), -1, self.patch)

    def _scaled(self, values: Floats, place: Floats) -> Floats:
        scaled: Floats = (values - place[0]) / place[1]
        return scaled

    def of_history(self, values: Floats, known: _Known) -> tuple[Moments, Floats, _Doubles]:
        """Moments of values [B, T], location and scale [2, B, T or 1], and the limits of scales [2, B, 1]."""
        weight, exact = known.astype(np.float64), values.astype(np.float64)
        count = np.maximum(weight.sum(axis=1, keepdims=True), 1)
        mean = (weight * exact).sum(axis=1, keepdims=True) / count
        variance = np.square((exact - mean) * weight).sum(axis=1, keepdims=True) / count
        scale = np.sqrt(variance + self.least_variance)
        nothing = np.zeros_like(mean)
        moments = Moments(nothing, nothing, nothing, nothing)
        bounds = np.stack([nothing, nothing + np.inf])
        if self.scaler == "history":
            return moments, np.stack([mean, scale]).astype(np.float32), bounds
        if self.bounded:
            spread = 10.0**self.exponent
            bounds = np.stack([np.maximum(self.least_variance, scale / spread), scale * spread])
        return *self.after(moments, values, known, bounds), bounds

    def after(
        self, moments: Moments, values: Floats, known: _Known, bounds: _Doubles
    ) -> tuple[Moments, Floats]:
        """Moments after whole patches of values [..., T], and location and scale of each, [2, ..., T].

        By Welford's algorithm in double precision, as upstream's `compute_causal_statistics`.
        """
        weight, exact = known.astype(np.float64), values.astype(np.float64)
        count = moments.count + weight.cumsum(axis=-1)
        total = moments.total + (weight * exact).cumsum(axis=-1)
        least = np.maximum(count, 1)
        mean = total / least
        before = np.concatenate([np.broadcast_to(moments.mean, mean[..., :1].shape), mean[..., :-1]], axis=-1)
        squares = moments.squares + ((exact - before) * (exact - mean) * weight).cumsum(axis=-1)
        variance = squares / (np.maximum(least - 1, 1) if self.unbiased else least)
        scale = np.clip(np.sqrt(variance + self.least_variance), *bounds)
        place = np.stack([mean, scale]).astype(np.float32)
        if self.scaler == "patch":
            place = np.repeat(place[..., self.patch - 1 :: self.patch], self.patch, axis=-1)
        return Moments(*(x[..., -1:] for x in (count, total, mean, squares))), place
