"""Spearman's rank correlation with a bootstrap interval and a permutation test."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

RESAMPLES = 1000
LIMITS = (2.5, 97.5)

Floats = NDArray[np.float64]


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman's rho over pairs that are both known; NaN for fewer than three or a constant."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    known = np.isfinite(x) & np.isfinite(y)
    if known.sum() < 3 or np.ptp(x[known]) == 0 or np.ptp(y[known]) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(x[known]), rankdata(y[known]))[0, 1])


@dataclasses.dataclass(frozen=True)
class Correlation:
    """Spearman's rho over `count` pairs (heads, say).

    low, high : 95 % bootstrap interval over pairs
    p_value : share of permutations (the null: no relation) with a rho at least as far from 0
    """

    rho: float
    low: float
    high: float
    p_value: float
    count: int


def _rows_correlation(a: Floats, b: Floats) -> Floats:
    """Pearson's correlation of each row of a and b [R, n], [R]; NaN for a constant row."""
    x, y = (v - v.mean(axis=1, keepdims=True) for v in (a, b))
    size = np.sqrt((x**2).sum(1) * (y**2).sum(1))
    found = np.full(len(y), np.nan)
    np.divide((x * y).sum(1), size, out=found, where=size > 0)
    return found


def correlation(a: ArrayLike, b: ArrayLike, seed: int = 0) -> Correlation:
    """Spearman's rho of a and b [N] with a bootstrap interval and a permutation p value."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    rho = spearman(x, y)
    if np.isnan(rho):
        return Correlation(rho, rho, rho, float("nan"), len(x))
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(x), (RESAMPLES, len(x)))
    low, high = np.nanpercentile(
        _rows_correlation(rankdata(x[rows], axis=1), rankdata(y[rows], axis=1)), LIMITS
    )
    shuffled = rng.permuted(np.tile(rankdata(y), (RESAMPLES, 1)), axis=1)
    null = _rows_correlation(rankdata(x)[None], shuffled)
    p_value = (1 + np.sum(np.abs(null) >= abs(rho) - 1e-12)) / (1 + RESAMPLES)
    return Correlation(rho, float(low), float(high), float(p_value), len(x))
