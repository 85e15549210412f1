"""Intervals for changes of a metric: a paired bootstrap over series, then over configurations.

1. Sums per window are added up per series: windows of one series are not independent.
2. A draw takes configurations with replacement, and series with replacement within each time a
   configuration is taken; the same series count with and without the ablation (paired).
3. The change of a draw is that of the geometric mean over its configurations, as in the tables.
4. All ablations share the draws: a draw's weights are made once and multiply the sums of all of them,
   so that differences between ablations, and medians over some, have intervals as well.

Source of the two levels: Davison & Hinkley (1997), Bootstrap Methods and their Application, section
3.8. Limits are percentiles of the draws, a little further out than the level says: percentiles alone
are too narrow for few configurations. Source: Hesterberg (2015), What Teachers Should Know About the
Bootstrap, section 3.2.3 (expanded percentile interval).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.stats import norm, t

from tsprune.evaluation.metrics import WindowStatistics

DRAWS = 2000
LEVEL = 0.95

Array = NDArray[np.float64]
Metric = Literal["MASE", "CRPS"]
_SUMS: dict[Metric, tuple[str, str]] = {
    "MASE": ("scaled_error_sum", "scaled_error_count"),
    "CRPS": ("quantile_loss_sum", "absolute_target_sum"),
}
# numbers held at once: draws of a configuration with many series are made in parts
_AT_ONCE = 4_000_000


@dataclasses.dataclass(frozen=True)
class Paired:
    """One configuration scored twice: windows of `before` and `after` are the same M windows.

    series : int64 [M], which series a window is from
    """

    before: WindowStatistics
    after: WindowStatistics
    series: NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Scored:
    """One configuration scored without ablation and under A of them, always the same M windows.

    after : A scores; None where an ablation has none (its change is NaN)
    series : int64 [M], which series a window is from
    chosen : bool [M], the windows that count; None takes all
    """

    before: WindowStatistics
    after: Sequence[WindowStatistics | None]
    series: NDArray[np.int64]
    chosen: NDArray[np.bool_] | None = None


@dataclasses.dataclass(frozen=True)
class Change:
    """A relative change (0.06 is 6 % worse) with its bootstrap interval.

    value : on all windows
    low, high : limits of the interval; NaN if there is a single series or window in all
    p_value : two-sided, of no change: Student's t of the logarithm over its bootstrap standard error
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
        if np.isnan(self.low):
            return f"{100 * self.value:+.1f} % [no interval]"
        return f"{100 * self.value:+.1f} % [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"


@dataclasses.dataclass(frozen=True)
class Resampled:
    """A numbers and what they are under each of R draws; column a of `draws` belongs to values[a].

    values : [A], on all windows
    draws : [R, A]; the same row is the same draw in every column
    size : what the spread is estimated from: configurations, or the series of a single one
    units : series (or windows) drawn from, in all
    logarithmic : whether the standard error is taken of log(1 + value), as for relative changes
    """

    values: Array
    draws: Array
    size: int
    units: int
    logarithmic: bool = True

    def limits(self, level: float = LEVEL) -> tuple[Array, Array]:
        """(low [A], high [A]) of the expanded percentile interval; NaN where nothing is known."""
        tails = np.array([_tail(level, self.size), 1 - _tail(level, self.size)])
        if self.size < 2 or not len(self.draws):
            nothing = np.full(len(self.values), np.nan)
            return nothing, nothing.copy()
        with np.errstate(invalid="ignore"):  # the way from a number to infinity
            found = np.quantile(self.draws, tails, axis=0)
        for column in np.flatnonzero(~np.isfinite(self.draws).all(axis=0)):
            # a draw of series without any target says nothing
            known = self.draws[~np.isnan(self.draws[:, column]), column]
            found[:, column] = np.quantile(known, tails, method="nearest") if len(known) else np.nan
        return found[0], found[1]

    def p_values(self) -> Array:
        """[A], two-sided, of 0: t with size - 1 degrees of freedom and the bootstrap standard error."""
        if self.size < 2 or not len(self.draws):
            return np.full(len(self.values), np.nan)
        with np.errstate(all="ignore"):
            values, draws = self.values, self.draws
            if self.logarithmic:
                values, draws = np.log1p(values), np.log1p(draws)
            # of the identical there is no spread, but for rounding
            error = np.sqrt(self.size / (self.size - 1)) * draws.std(axis=0)
            none = np.abs(values) < 1e-12
            score = np.abs(values) / np.where(error > 1e-12, error, 0.0)
            found = 2 * t.sf(score, self.size - 1)
        return np.where(none, 1.0, np.asarray(found, dtype=np.float64))

    def change(self, column: int = 0, *, level: float = LEVEL) -> Change:
        """One column with its interval."""
        one = self.columns([column])
        (low,), (high,), (p_value,) = (*one.limits(level), one.p_values())
        return Change(float(one.values[0]), float(low), float(high), float(p_value), self.units)

    def columns(self, chosen: Sequence[int]) -> Resampled:
        """Some of the columns, under the same draws."""
        picked = list(chosen)
        return dataclasses.replace(self, values=self.values[picked], draws=self.draws[:, picked])

    def median(self) -> Resampled:
        """The median over the columns, as one column."""
        return dataclasses.replace(
            self,
            values=np.median(self.values, keepdims=True),
            draws=np.median(self.draws, axis=1, keepdims=True),
        )

    def mean_of_drawn(self, seed: int = 0) -> Resampled:
        """The mean over the columns, as one column, where the columns are themselves a random sample.

        Each draw takes columns with replacement, so that the interval is about the mean over all
        columns there could have been.
        """
        count = self.draws.shape[1]
        rng = np.random.default_rng([seed, count])
        weights = rng.multinomial(count, np.full(count, 1 / count), len(self.draws)) / count
        return dataclasses.replace(
            self,
            values=self.values.mean(keepdims=True),
            draws=(weights * self.draws).sum(axis=1, keepdims=True),
        )

    def minus(self, other: Resampled) -> Resampled:
        """Differences, column by column, draw by draw.

        Paired if both come from the same windows and seed; otherwise the draws are independent, which
        makes intervals wider, not narrower, than pairing would.
        """
        return Resampled(
            self.values - other.values,
            self.draws - other.draws,
            min(self.size, other.size),
            min(self.units, other.units),
            logarithmic=False,
        )


def resample(scored: Sequence[Scored], metric: Metric, *, draws: int = DRAWS, seed: int = 0) -> Resampled:
    """Relative changes of the geometric mean over configurations, for A ablations under the same draws.

    A configuration of a single series is drawn from by its windows (which do not overlap): all the
    variation there is to see, and likely too little. A configuration whose metric before is 0 or
    undefined does not count; without any that counts, everything is NaN.
    """
    units = [found for one in scored if (found := _Units.of(one, metric)) is not None and found.usable]
    count = len(scored[0].after) if scored else 0
    if not units:
        return Resampled(np.full(count, np.nan), np.full((0, count), np.nan), 0, 0)
    rng = np.random.default_rng(seed)
    # which configuration each draw takes at each of as many places as there are configurations
    places = rng.integers(0, len(units), (draws, len(units)))
    total = np.zeros((draws, count))
    for number, one in enumerate(units):
        logs = one.drawn_log_ratios(rng, draws)
        for place in range(len(units)):
            here = np.flatnonzero(places[:, place] == number)
            # a configuration taken twice by a draw has its series drawn twice: rows are shifted by place
            total[here] += logs[(here + place) % draws]
    with np.errstate(all="ignore"):
        values = np.exp(np.mean([one.log_ratio() for one in units], axis=0)) - 1
        drawn = np.exp(total / len(units)) - 1
    sizes = [len(one) for one in units]
    return Resampled(values, drawn, len(units) if len(units) > 1 else sizes[0], sum(sizes))


def change_interval(
    pairs: Sequence[Paired],
    metric: Metric,
    *,
    draws: int = DRAWS,
    level: float = LEVEL,
    seed: int = 0,
) -> Change:
    """Relative change of the geometric mean over configurations, with its interval; see `resample`."""
    scored = [Scored(pair.before, [pair.after], pair.series) for pair in pairs]
    if not scored:
        nan = float("nan")
        return Change(nan, nan, nan, nan, 0)
    return resample(scored, metric, draws=draws, seed=seed).change(level=level)


def simultaneous(count: int, level: float = LEVEL) -> float:
    """The level of `count` intervals that hold together with probability `level` (Bonferroni).

    >>> round(simultaneous(5), 4)
    0.99
    """
    return 1 - (1 - level) / max(1, count)


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
class _Units:
    """Numerators and denominators of a metric per unit, [U] before and [U, A] after."""

    before_sums: Array
    before_weights: Array
    after_sums: Array
    after_weights: Array

    @classmethod
    def of(cls, scored: Scored, metric: Metric) -> _Units | None:
        """Sums per series, or per window of a single series; None without windows."""
        everything = np.ones(len(scored.series), dtype=np.bool_)
        chosen = everything if scored.chosen is None else scored.chosen
        owners, unit = np.unique(scored.series[chosen], return_inverse=True)
        if len(owners) == 0:
            return None
        if len(owners) == 1:
            unit = np.arange(int(chosen.sum()))
        windows = np.arange(len(unit))
        # [U, M]: which windows a unit adds up; sparse, as there may be tens of thousands of each
        member = csr_array((np.ones(len(unit)), (unit, windows)), shape=(unit.max() + 1, len(unit)))

        def per_unit(scores: Sequence[WindowStatistics | None], name: str) -> Array:
            nothing = np.full(len(chosen), np.nan)
            columns = [nothing if one is None else getattr(one, name) for one in scores]
            return np.asarray(member @ np.stack(columns, axis=1)[chosen])

        total, weight = _SUMS[metric]
        before = (per_unit([scored.before], name)[:, 0] for name in (total, weight))
        return cls(*before, *(per_unit(scored.after, name) for name in (total, weight)))

    def __len__(self) -> int:
        return len(self.before_sums)

    @property
    def usable(self) -> bool:
        """Whether the metric before is defined and not 0."""
        total = self.before_weights.sum()
        return bool(total and self.before_sums.sum() / total > 0)

    def log_ratio(self) -> Array:
        """Logarithm of after / before, [A]."""
        with np.errstate(all="ignore"):
            after = self.after_sums.sum(axis=0) / self.after_weights.sum(axis=0)
            before = self.before_sums.sum() / self.before_weights.sum()
            return np.asarray(np.log(after) - np.log(before))

    def drawn_log_ratios(self, rng: np.random.Generator, draws: int) -> Array:
        """Logarithm of after / before under `draws` draws of the units, [draws, A]."""
        found = []
        for counts in self._counts(rng, draws):
            with np.errstate(all="ignore"):
                after = (counts @ self.after_sums) / (counts @ self.after_weights)
                before = (counts @ self.before_sums) / (counts @ self.before_weights)
                found.append(np.log(after) - np.log(before)[:, None])
        return np.concatenate(found)

    def _counts(self, rng: np.random.Generator, draws: int) -> Iterator[Array]:
        """How often each draw takes each unit, [draws, U], in parts."""
        units = len(self)
        step = max(1, _AT_ONCE // units)
        for start in range(0, draws, step):
            size = min(step, draws - start)
            yield rng.multinomial(units, np.full(units, 1 / units), size).astype(np.float64)


def _tail(level: float, size: int) -> float:
    """Share of the draws beyond each limit of the expanded percentile interval."""
    if size < 2:
        return float("nan")
    reach = np.sqrt(size / (size - 1)) * t.ppf((1 + level) / 2, size - 1)
    return float(norm.cdf(-reach))
