"""Intervals for the change of a metric: a paired bootstrap over series, then over configurations.

1. Sums per window are added up per series: windows of one series are not independent.
2. A draw takes configurations with replacement, and series with replacement within each; the same
   series count with and without the ablation (paired).
3. The change of a draw is that of the geometric mean over its configurations, as in the table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tsprune.evaluation.metrics import WindowStatistics

DRAWS = 2000
LEVEL = 0.95

Array = NDArray[np.float64]
Metric = Literal["MASE", "CRPS"]
_SUMS: dict[Metric, tuple[str, str]] = {
    "MASE": ("scaled_error_sum", "scaled_error_count"),
    "CRPS": ("quantile_loss_sum", "absolute_target_sum"),
}


@dataclasses.dataclass(frozen=True)
class Paired:
    """One configuration scored twice: windows of `before` and `after` are the same M windows.

    series : int64 [M], which series a window is from
    """

    before: WindowStatistics
    after: WindowStatistics
    series: NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Change:
    """A relative change (0.06 is 6 % worse) with its bootstrap interval.

    value : on all windows
    low, high : limits of the interval
    p_value : two-sided, of no change: twice the share of draws on the other side of 0
    units : series (or windows, of a configuration with a single series) that were drawn from
    """

    value: float
    low: float
    high: float
    p_value: float
    units: int

    @property
    def differs(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{100 * self.value:+.1f} % [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"


def change_interval(
    pairs: Sequence[Paired],
    metric: Metric,
    *,
    draws: int = DRAWS,
    level: float = LEVEL,
    seed: int = 0,
) -> Change:
    """Relative change of the geometric mean over configurations, with a percentile interval.

    A configuration of a single series is drawn from by its windows (which do not overlap): all the
    variation there is to see, and likely too little. A configuration whose metric before is 0 or
    undefined does not count; without any that counts, everything is NaN.
    """
    ratios = [_ratios(pair, metric) for pair in pairs]
    usable = [r for r in ratios if r is not None and r.before > 0]
    if not usable:
        nan = float("nan")
        return Change(nan, nan, nan, nan, 0)
    rng = np.random.default_rng(seed)
    logs = np.stack([r.log_ratios(rng, draws) for r in usable], axis=1)  # [draws, C]
    weights = rng.multinomial(len(usable), np.full(len(usable), 1 / len(usable)), draws)
    with np.errstate(all="ignore"):
        drawn = np.exp(np.where(weights > 0, weights * logs, 0.0).sum(axis=1) / len(usable)) - 1
        value = float(np.exp(np.mean([np.log(r.after / r.before) for r in usable])) - 1)
    # a draw of series without any target says nothing
    known = drawn[~np.isnan(drawn)]
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2]) if len(known) else (np.nan, np.nan)
    units = sum(len(r.before_sums) for r in usable)
    return Change(value, float(low), float(high), _p_value(known), units)


def holm(p_values: ArrayLike) -> Array:
    """Holm's adjusted p-values [N] of a family of N tests; NaN stays NaN and is not counted.

    Source: Holm (1979), A simple sequentially rejective multiple test procedure.

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


@dataclasses.dataclass(frozen=True)
class _Ratios:
    """Numerators and denominators of a metric per unit [U], before and after."""

    before_sums: Array
    before_weights: Array
    after_sums: Array
    after_weights: Array

    @property
    def before(self) -> float:
        return _quotient(self.before_sums, self.before_weights)

    @property
    def after(self) -> float:
        return _quotient(self.after_sums, self.after_weights)

    def log_ratios(self, rng: np.random.Generator, draws: int) -> Array:
        """Logarithm of after / before under `draws` draws of the units, [draws]."""
        units = len(self.before_sums)
        counts = rng.multinomial(units, np.full(units, 1 / units), draws).astype(np.float64)
        with np.errstate(all="ignore"):
            after = (counts @ self.after_sums) / (counts @ self.after_weights)
            before = (counts @ self.before_sums) / (counts @ self.before_weights)
            return np.asarray(np.log(after) - np.log(before))


def _ratios(pair: Paired, metric: Metric) -> _Ratios | None:
    owners, unit = np.unique(pair.series, return_inverse=True)
    if len(owners) == 0:
        return None
    if len(owners) == 1:
        unit = np.arange(len(pair.series))
    total, weight = _SUMS[metric]
    columns = (getattr(scores, name) for scores in (pair.before, pair.after) for name in (total, weight))
    return _Ratios(*(np.asarray(np.bincount(unit, weights=x), dtype=np.float64) for x in columns))


def _quotient(sums: Array, weights: Array) -> float:
    total = weights.sum()
    return float(sums.sum() / total) if total else float("nan")


def _p_value(drawn: Array) -> float:
    if not len(drawn):
        return float("nan")
    below, above = (drawn <= 0).sum(), (drawn >= 0).sum()
    return float(min(1.0, 2 * (min(below, above) + 1) / (len(drawn) + 1)))
