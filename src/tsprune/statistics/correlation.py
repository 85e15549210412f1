"""Spearman's rank correlation with an interval and a p-value."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm, rankdata

from tsprune.statistics.estimate import LEVEL, Estimate

FEWEST = 4  # pairs: the interval has FEWEST - 3 degrees of freedom and more


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman's rho over pairs that are both known; NaN for fewer than three or a constant."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    known = np.isfinite(x) & np.isfinite(y)
    if known.sum() < 3 or np.ptp(x[known]) == 0 or np.ptp(y[known]) == 0:
        return float("nan")
    return float(np.clip(np.corrcoef(rankdata(x[known]), rankdata(y[known]))[0, 1], -1, 1))


def correlation(a: ArrayLike, b: ArrayLike, *, level: float = LEVEL) -> Estimate:
    """Spearman's rho of a and b [N]; its unit is a pair (a head, say).

    Fisher's transform with the standard error sqrt((1 + rho^2 / 2) / (N - 3)). The p-value is that of the
    null hypothesis of no relation, by the same numbers.
    Limits and p are NaN for fewer than four pairs. Rankings that agree fully count as half an exchange of
    neighbours away from that: no number of pairs makes sure of a correlation of 1.

    Source: Bonett & Wright (2000), Sample size requirements for estimating Pearson, Kendall and Spearman
    correlations.
    """
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    count = int((np.isfinite(x) & np.isfinite(y)).sum())
    rho = spearman(x, y)
    if math.isnan(rho) or count < FEWEST:
        return Estimate(rho, math.nan, math.nan, math.nan, count)
    most = 1 - 6 / (count * (count**2 - 1))
    middle = math.atanh(min(max(rho, -most), most))
    error = math.sqrt((1 + rho**2 / 2) / (count - 3))
    reach = float(norm.ppf((1 + level) / 2)) * error
    low, high = math.tanh(middle - reach), math.tanh(middle + reach)
    p = 2 * float(norm.sf(abs(middle) / error))
    return Estimate(rho, min(low, rho), max(high, rho), p, count)


def correlation_row(a: ArrayLike, b: ArrayLike) -> dict[str, float]:
    """`correlation` as columns of a table: rho, low, high, p_value, count."""
    found = correlation(a, b)
    return {
        "rho": found.value,
        "low": found.low,
        "high": found.high,
        "p_value": found.p,
        "count": found.count,
    }
