"""Forecast metrics as sums per window, from which the metric of any subset of windows follows.

The metrics are those of `gluonts.ev` as GIFT-Eval's leaderboard uses them: unknown targets (NaN)
are masked, and so are points whose denominator is zero. All sums are accumulated in float64.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tsprune.arguments import checked, shown
from tsprune.errors import TspruneError
from tsprune.plugins import Registry
from tsprune.schema import Column
from tsprune.statistics.estimate import Array

CRPS_LEVELS: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
INTERVAL_ALPHA = 0.05


@checked
def seasonal_errors(contexts: Sequence[ArrayLike], season: int) -> Array:
    """Mean absolute seasonal difference of each history, [N]: mean over t of |y_t - y_(t-season)|.

    contexts : N one-dimensional histories, whole (not cut to a model's context length); NaN and
        infinite values are missing, and pairs with a missing end do not count

    A history shorter than a season is scaled by its first differences; one without any pair gets 0,
    which masks its scaled errors. Source: `gluonts.ev.ts_stats.seasonal_error` on masked arrays.
    """
    return np.array([_seasonal_error(np.asarray(context), season) for context in contexts], dtype=np.float64)


def _seasonal_error(history: NDArray[np.floating], season: int) -> float:
    lag = 1 if season > len(history) else season
    with np.errstate(invalid="ignore"):  # infinite values are missing, like NaN
        difference = np.abs(history[lag:].astype(np.float64) - history[: len(history) - lag])
    total = difference.sum()
    if np.isfinite(total):
        return float(total / len(difference)) if len(difference) else 0.0
    known = difference[np.isfinite(difference)]
    return float(known.mean()) if len(known) else 0.0


@dataclasses.dataclass(frozen=True)
class WindowStatistics:
    """Sums over the horizon of each window, float64 [N] each; ratios of their totals are the metrics.

    target_count : known target values
    absolute_target_sum : sum of |y|
    quantile_loss_sum : mean over levels .1 to .9 of the sum of twice the pinball loss
    absolute_error_sum, squared_error_sum : of the median forecast
    mean_squared_error_sum : squared errors of the mean forecast
    scaled_error_sum, scaled_error_count : |y - median| / seasonal error, where that is not 0
    percentage_error_sum, percentage_error_count : |y - median| / |y|, where y is not 0
    symmetric_error_sum, symmetric_error_count : 2 |y - median| / (|y| + |median|), likewise
    interval_score_sum, interval_score_count : scaled interval score at alpha = 0.05
    """

    target_count: Array
    absolute_target_sum: Array
    quantile_loss_sum: Array
    absolute_error_sum: Array
    squared_error_sum: Array
    mean_squared_error_sum: Array
    scaled_error_sum: Array
    scaled_error_count: Array
    percentage_error_sum: Array
    percentage_error_count: Array
    symmetric_error_sum: Array
    symmetric_error_count: Array
    interval_score_sum: Array
    interval_score_count: Array

    def __len__(self) -> int:
        return len(self.target_count)

    def select(self, rows: NDArray[np.bool_] | NDArray[np.integer]) -> WindowStatistics:
        """The statistics of some windows: a mask [N] or indices, which may repeat."""
        return WindowStatistics(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))

    @classmethod
    def concatenate(cls, parts: Sequence[WindowStatistics]) -> WindowStatistics:
        """The windows of all parts, in that order."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def window_statistics(
    *,
    quantiles: NDArray[np.floating],
    levels: Sequence[float],
    targets: NDArray[np.floating],
    season_errors: Array,
    mean: NDArray[np.floating] | None = None,
    interval: NDArray[np.floating] | None = None,
) -> WindowStatistics:
    """Sums of N windows, from which metrics follow.

    quantiles : [N, Q, H] forecasts at `levels`, which include .1, .2, ..., .9
    targets : [N, H], NaN where unknown
    season_errors : [N], see `seasonal_errors`
    mean : [N, H] mean forecast; the median where a model has none (as upstream evaluations do)
    interval : [N, 2, H] forecasts at levels .025 and .975; by default extrapolated from `quantiles`

    Raises TspruneError if one of the nine levels is missing.
    """
    nine = quantiles[:, [level_index(levels, level) for level in CRPS_LEVELS]].astype(np.float64)
    y = targets.astype(np.float64)
    known, median = np.isfinite(y), nine[:, 4]
    error = np.abs(y - median)
    centre = median if mean is None else mean.astype(np.float64)
    outer = exponential_tails(quantiles, levels) if interval is None else interval.astype(np.float64)
    scale = np.broadcast_to(season_errors[:, None], y.shape)
    sums = (np.abs(y), _mean_quantile_loss(y, nine), error, error**2, (y - centre) ** 2)
    ratios = (
        (error, scale),
        (error, np.abs(y)),
        (2 * error, np.abs(y) + np.abs(median)),
        (_interval_score(y, outer), scale),
    )
    return WindowStatistics(  # in the order of its fields
        _count(known),
        *(_sum(values, known) for values in sums),
        *(part for top, bottom in ratios for part in _ratio_sums(top, bottom, known)),
    )


def level_index(levels: Sequence[float], level: float) -> int:
    """Position of `level` in `levels`; TspruneError if the forecast lacks it."""
    for index, candidate in enumerate(levels):
        if abs(candidate - level) < 1e-6:
            return index
    raise TspruneError(f"the forecast has no quantile at level {level}; metrics need .1, .2, ..., .9")


def exponential_tails(quantiles: NDArray[np.floating], levels: Sequence[float]) -> Array:
    """Quantiles at levels .025 and .975, [N, 2, H], from forecasts [N, Q, H] at `levels`.

    Levels of the forecast are taken as they are. Beyond the second outermost level, an exponential tail runs
    through the two outermost ones; between others, quantiles are interpolated linearly.
    Source: gluonts `QuantileForecast.quantile` and `ExponentialTailApproximation`.
    """
    q = np.asarray(quantiles, dtype=np.float64)
    below = np.asarray(levels, dtype=np.float64)
    # the right tail is the left tail of the mirrored distribution
    left = _left_quantile(q, below)
    right = -_left_quantile(-q[:, ::-1], 1 - below[::-1])
    return np.stack([left, right], axis=1)


def _left_quantile(quantiles: Array, levels: Array) -> Array:
    """Quantile [N, H] at level alpha / 2."""
    level = INTERVAL_ALPHA / 2
    upper = int(np.searchsorted(levels, level - 1e-9))
    if abs(levels[upper] - level) < 1e-9:
        return np.asarray(quantiles[:, upper])
    if upper > 1:
        weight = (level - levels[upper - 1]) / (levels[upper] - levels[upper - 1])
        return np.asarray(quantiles[:, upper - 1] * (1 - weight) + quantiles[:, upper] * weight)
    slope = (quantiles[:, 1] - quantiles[:, 0]) / np.log(levels[1] / levels[0])
    return np.asarray(quantiles[:, 1] + slope * np.log(level / levels[1]))


def _mean_quantile_loss(y: Array, nine: Array) -> Array:
    """Twice the pinball loss of the nine quantiles, averaged over them, [N, H]."""
    levels = np.array(CRPS_LEVELS)[None, :, None]
    gap = y[:, None] - nine
    return np.asarray((2 * np.maximum(levels * gap, (levels - 1) * gap)).mean(axis=1))


def _interval_score(y: Array, interval: Array) -> Array:
    low, high = interval[:, 0], interval[:, 1]
    outside = np.maximum(low - y, 0) + np.maximum(y - high, 0)
    return np.asarray(high - low + 2 / INTERVAL_ALPHA * outside)


def _ratio_sums(numerator: Array, denominator: Array, known: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Sum and count [N] of ratios whose target is known and whose denominator is not zero."""
    valid = known & (denominator != 0)
    ratio = np.divide(numerator, denominator, out=np.zeros_like(numerator), where=valid)
    return _sum(ratio, valid), _count(valid)


def _sum(values: Array, valid: NDArray[np.bool_]) -> Array:
    """Sum over the valid points; NaN in the forecast itself shows."""
    return np.asarray(np.where(valid, values, 0.0).sum(axis=1))


def _count(valid: NDArray[np.bool_]) -> Array:
    return np.asarray(valid.sum(axis=1), dtype=np.float64)


Sums = Callable[[WindowStatistics], Array]


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric of windows: a sum over them divided by another; lower is better.

    name : an identifier; in lower case it begins the names of columns (`key`)
    numerator, denominator : of each window, [N], from the N windows' statistics
    undefined : a reason why the denominator may be zero

    Packages add metrics by the entry point group `tsprune.metrics`.
    """

    name: str
    numerator: Sums
    denominator: Sums
    undefined: str = "its denominator is zero"

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise TspruneError(f"the name of a metric must be an identifier, not {shown(self.name)}")

    @property
    def key(self) -> str:
        """The name in lower case: "mase" of `mase_change`."""
        return self.name.lower()

    def of(self, statistics: WindowStatistics) -> float:
        """The metric of all windows together; NaN if the denominators sum to zero."""
        return ratio_of_sums(self.numerator(statistics), self.denominator(statistics))


# mean absolute scaled error of the median over all points
MASE = Metric(
    "MASE",
    attrgetter("scaled_error_sum"),
    attrgetter("scaled_error_count"),
    undefined="the histories are constant",
)
# mean weighted sum quantile loss: quantile losses of all windows over the sum of |y|
CRPS = Metric(
    "CRPS",
    attrgetter("quantile_loss_sum"),
    attrgetter("absolute_target_sum"),
    undefined="all targets are zero",
)
METRICS: Registry[Metric] = Registry("tsprune.metrics", Metric, (MASE, CRPS), noun="metric")


def per_metric(name: str, about: str, unit: str = "") -> Callable[[], Iterator[Column]]:
    """A column of a schema for each metric: `{name}` and `{key}` in name and meaning are the metric's."""
    return lambda: (
        Column(name.format(name=m.name, key=m.key), about.format(name=m.name, key=m.key), unit)
        for m in METRICS.values()
    )


def aggregate(values: ArrayLike) -> Array:
    """Geometric means over C configurations of values [C] or [C, M]; NaN for none.

    Not scipy's gmean, which warns about the zeros and NaN that an ablation may produce.
    """
    found = np.asarray(values, dtype=np.float64)
    if not len(found):
        return np.full(found.shape[1:], np.nan)
    with np.errstate(all="ignore"):
        return np.asarray(np.exp(np.log(found).mean(axis=0)))


def ratio_of_sums(numerator: Array, denominator: Array) -> float:
    """The sum of one over that of the other; NaN where the latter is zero."""
    total = denominator.sum()
    return float(numerator.sum() / total) if total else float("nan")


def spearman_distance(a: ArrayLike, b: ArrayLike) -> Array:
    """1 - Spearman's rho of the rows of `a` and `b`, both [N, H]; result [N] in [0, 2].

    Ties get their average rank. Two constant rows are 0 apart, a constant and a varying one 1.
    """
    return rank_distance(centred_ranks(a), centred_ranks(b))


def rank_distance(first: Array, second: Array) -> Array:
    """`spearman_distance` [N] of rows whose `centred_ranks` [N, H] these are."""
    power = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    both_constant = ~first.any(axis=1) & ~second.any(axis=1)
    rho = np.divide((first * second).sum(axis=1), power, out=np.zeros(len(power)), where=power != 0)
    return np.asarray(np.clip(1 - np.where(both_constant, 1.0, rho), 0.0, 2.0))


def centred_ranks(rows: ArrayLike) -> Array:
    """Ranks within each of the rows [N, H] less their mean, [N, H]; ties get their average rank."""
    values = np.atleast_2d(np.asarray(rows, dtype=np.float64))
    order = np.argsort(values, axis=1)
    ordered = np.take_along_axis(values, order, axis=1)
    middle = (values.shape[1] + 1) / 2
    if np.isnan(ordered[:, -1]).any() or (ordered[:, 1:] == ordered[:, :-1]).any():
        # ties and NaN are rare and slow; scipy.stats takes more than half a second to import
        from scipy.stats import rankdata

        return np.asarray(rankdata(values, axis=1) - middle, dtype=np.float64)
    ranks = np.empty_like(values)
    steps = np.arange(1, values.shape[1] + 1) - middle
    np.put_along_axis(ranks, order, np.broadcast_to(steps, values.shape), axis=1)
    return np.asarray(ranks)
