"""Means over series with bootstrap intervals: windows of one series are not independent."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 1000
LIMITS = (2.5, 97.5)

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean over series with its 95 % bootstrap interval; `count` series."""

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"


def series_means(values: ArrayLike, series: ArrayLike) -> Floats:
    """Mean per series over its windows that have a value.

    values : [W] or [W, M], NaN where there is none; series : int [W]

    Returns [S] or [S, M], series ascending, NaN where a series has no value.
    """
    x, (names, owner) = np.asarray(values, np.float64), np.unique(np.asarray(series), return_inverse=True)
    sums, counts = (np.zeros((len(names), *x.shape[1:])) for _ in range(2))
    np.add.at(sums, owner, np.nan_to_num(x))
    np.add.at(counts, owner, np.isfinite(x))
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def resampled(values: ArrayLike, seed: int, resamples: int = RESAMPLES) -> Floats:
    """Means of bootstrap draws of series, [R, M] from [S, M]; all columns share the draws (paired).

    NaN values do not count; NaN where a draw has none but these.
    """
    x = np.asarray(values, np.float64)
    draws = np.random.default_rng(seed).multinomial(
        len(x), np.full(len(x), 1 / max(1, len(x))), size=resamples
    )
    sums, counts = draws @ np.nan_to_num(x), draws @ np.isfinite(x)
    means = np.full(sums.shape, np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means


def mean_interval(values: ArrayLike, seed: int = 0) -> Interval:
    """Mean of `values` [S], one a series, and its percentile bootstrap interval; NaN does not count."""
    x = np.asarray(values, np.float64)
    x = x[np.isfinite(x)]
    if len(x) < 2 or np.ptp(x) == 0:
        mean = float(x.mean()) if len(x) else float("nan")
        return Interval(mean, mean, mean, len(x))
    low, high = np.percentile(resampled(x[:, None], seed), LIMITS)
    return Interval(float(x.mean()), float(low), float(high), len(x))


def column_intervals(values: ArrayLike, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    """(mean, low, high), each [M], of every column of `values` [S, M]; see `mean_interval`."""
    x = np.asarray(values, np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # columns without any value are NaN
        low, high = np.nanpercentile(resampled(x, seed), LIMITS, axis=0)
        return np.nanmean(x, axis=0), low, high
