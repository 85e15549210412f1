"""Measured numbers with intervals and p-values; rank correlations among them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, rankdata

LEVEL = 0.95
_FEWEST = 4  # pairs: the interval of a correlation has N - 3 degrees of freedom

Array = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A value with its interval.

    low, high : limits of the interval; NaN for fewer than two units, whose spread is unknown
    p : two-sided p-value of the null hypothesis (no change, unless stated otherwise); NaN likewise
    count : units (configurations, or series of a single configuration) behind the spread
    """

    value: float
    low: float
    high: float
    p: float
    count: int

    @property
    def differs(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0

    @property
    def has_interval(self) -> bool:
        return not (math.isnan(self.low) or math.isnan(self.high))

    def row(self, name: str, *, limits: str = "", count: str | None = None) -> dict[str, float]:
        """The estimate as columns of a table: `name`, its `limits` + low and high, and `count` if named."""
        found = {name: self.value, f"{limits}low": self.low, f"{limits}high": self.high}
        return found if count is None else found | {count: self.count}

    def __str__(self) -> str:
        limits = f"{self.low:+.4f}, {self.high:+.4f}" if self.has_interval else "no interval"
        return f"{self.value:+.4f} [{limits}]"

    def as_percent(self) -> str:
        """The estimate of a relative change: `+3.1 % [-1.0, +7.0]`."""
        limits = f"{100 * self.low:+.1f}, {100 * self.high:+.1f}" if self.has_interval else "no interval"
        return f"{100 * self.value:+.1f} % [{limits}]"


UNKNOWN = Estimate(math.nan, math.nan, math.nan, math.nan, 0)


@dataclasses.dataclass(frozen=True)
class Estimates:
    """M estimates side by side: the fields of `Estimate`, each [M]."""

    value: Array
    low: Array
    high: Array
    p: Array
    count: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.value)

    def columns(self, name: str, *, limits: str | None = None) -> dict[str, Array]:
        """The estimates as columns of a table: `name`, and the limits, by default `name`_low and _high."""
        start = f"{name}_" if limits is None else limits
        return {name: self.value, f"{start}low": self.low, f"{start}high": self.high}

    def at(self, column: int) -> Estimate:
        """One of them."""
        value, low, high, p = (float(one[column]) for one in (self.value, self.low, self.high, self.p))
        return Estimate(value, low, high, p, int(self.count[column]))


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman's rho over pairs that are both known; NaN for fewer than three or a constant."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    known = np.isfinite(x) & np.isfinite(y)
    if known.sum() < 3 or np.ptp(x[known]) == 0 or np.ptp(y[known]) == 0:
        return float("nan")
    return float(np.clip(np.corrcoef(rankdata(x[known]), rankdata(y[known]))[0, 1], -1, 1))


def correlation(a: ArrayLike, b: ArrayLike, *, level: float = LEVEL) -> Estimate:
    """Spearman's rho of a and b [N], whose units are pairs (heads, say).

    Fisher's transform with the standard error sqrt((1 + rho^2 / 2) / (N - 3)), also for the p-value of no
    relation. Limits and p are NaN for fewer than four pairs. Identical rankings count as half an exchange of
    neighbours apart, so that no number of pairs makes a correlation of 1 certain.

    Source: Bonett & Wright (2000), Sample size requirements for estimating Pearson, Kendall and Spearman
    correlations.
    """
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    count = int((np.isfinite(x) & np.isfinite(y)).sum())
    rho = spearman(x, y)
    if math.isnan(rho) or count < _FEWEST:
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
    names = ("rho", "low", "high", "p_value", "count")
    return dict(zip(names, dataclasses.astuple(correlation(a, b)), strict=True))
