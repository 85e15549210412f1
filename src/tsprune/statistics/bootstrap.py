"""Intervals and p-values of means over units: Student's t, or a studentised bootstrap.

1. The standard error of a mean over N units is s / sqrt(N). If each unit was measured under D random
   draws of an experiment, units and draws are crossed, and their variances add (`standard_errors`).
2. The bootstrap resamples units (and draws) with replacement and computes the pivot (mean* - mean) / error*.
   Its quantiles replace Student's; unlike percentiles of mean*, they account for skewness.
   Source: Davison & Hinkley (1997), section 5.2.1; Hall (1992), The Bootstrap and Edgeworth Expansion.
3. Up to `EXACT` units all bootstrap draws are enumerated with their probabilities, so that nothing depends
   on a seed. Above, draws are added until the Monte Carlo error of a limit is below `MONTE_CARLO` of the
   interval's width, starting with `DRAWS`.
4. Fewer than `SMALL` units, or random draws, leave too few distinct bootstrap draws: Student's t, with
   Satterthwaite's degrees of freedom if draws are crossed with units.
"""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from tsprune.statistics.estimate import Array

DRAWS = 10_000
MOST_DRAWS = 160_000
MONTE_CARLO = 0.02
SMALL = 5
EXACT = 8
# spread below this share of the values is rounding
_ROUNDING = 1e-12


def inference(
    values: Array, *, level: float | None, seed: int, draws: int = DRAWS
) -> tuple[Array, Array, Array, Array, NDArray[np.int64]]:
    """(mean, low, high, p of mean 0, units) of M quantities, each [M].

    values : [D, N, M], as in `Sample`; a unit without a value under one of the draws does not count
    level : of the limits; None omits them (NaN)
    draws : of the bootstrap, at least

    Limits and p are NaN for fewer than two units.
    """
    known = np.isfinite(values).all(axis=0)
    found = [np.full(values.shape[2], np.nan) for _ in range(4)]
    patterns, owner = np.unique(known, axis=1, return_inverse=True)
    for number, pattern in enumerate(patterns.T):
        columns = np.flatnonzero(owner.ravel() == number)
        some = values[:, pattern][:, :, columns]
        for table, part in zip(found, _inference(some, level, seed, draws), strict=True):
            table[columns] = part
    mean, low, high, p = found
    return mean, low, high, p, known.sum(axis=0)


def _inference(
    values: Array, level: float | None, seed: int, least: int
) -> tuple[Array, Array, Array, Array]:
    """`inference` of quantities with values of all units."""
    draws, count, columns = values.shape
    nothing = np.full(columns, np.nan)
    if count == 0:
        return nothing, nothing, nothing, nothing
    mean = values.mean(axis=(0, 1))
    if count < 2:
        return mean, nothing, nothing, nothing
    deviations = values - mean
    error = standard_errors(deviations)
    # equal values have no spread, up to rounding
    error = np.where(error > _ROUNDING * np.maximum(1.0, np.abs(values).max(axis=(0, 1))), error, 0.0)
    if count < SMALL or 1 < draws < SMALL:
        units, drawn, _ = _variances(deviations)
        freedom = np.full(columns, count - 1.0)
        if draws > 1:  # Satterthwaite's
            with np.errstate(invalid="ignore", divide="ignore"):
                crossed = (units + drawn) ** 2 / (units**2 / (count - 1) + drawn**2 / (draws - 1))
            freedom = np.where(np.isfinite(crossed), crossed, freedom)
        reach = np.nan if level is None else t.ppf((1 + level) / 2, freedom)
        tails = 2 * t.sf(np.abs(_pivot(mean, error)), freedom)
        p = np.where(np.abs(mean) <= _ROUNDING, 1.0, tails)
        return mean, mean - reach * error, mean + reach * error, p
    below, above, p = _bootstrapped(deviations, mean, error, level, seed, least)
    with np.errstate(invalid="ignore"):
        low, high = (np.where(error > 0, mean - pivot * error, mean) for pivot in (above, below))
    flat = np.where(np.abs(mean) <= _ROUNDING, 1.0, 0.0)
    return mean, low, high, np.where(error > 0, p, flat)


def standard_errors(deviations: Array) -> Array:
    """Standard errors [M] of means over D draws crossed with N units, of values [D, N, M].

    The variance of a two-way mean is estimated by that of the units' means plus that of the draws' means
    minus that of their interaction, which both contain, and is never below either of the first two.
    """
    units, drawn, both = _variances(deviations)
    return np.asarray(np.sqrt(np.maximum(np.maximum(units, drawn), units + drawn - both)))


def _variances(x: Array) -> tuple[Array, Array, Array]:
    """Variances [M] of the mean of [D, N, M] by units, by draws, and by their interaction."""
    draws, count = x.shape[:2]
    of_units = x.mean(axis=0)
    units = of_units.var(axis=0, ddof=1) / count
    if draws == 1:
        return units, np.zeros_like(units), np.zeros_like(units)
    of_draws = x.mean(axis=1)
    rest = x - of_units - of_draws[:, None] + x.mean(axis=(0, 1))
    both = (rest**2).sum(axis=(0, 1)) / ((draws - 1) * (count - 1)) / (draws * count)
    return units, of_draws.var(axis=0, ddof=1) / draws, both


def _pivot(mean: Array, error: Array) -> Array:
    """mean / error; infinite where there is no error, 0 where both are 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.nan_to_num(mean / error, nan=0.0, posinf=np.inf, neginf=-np.inf))


def _bootstrapped(
    deviations: Array, mean: Array, error: Array, level: float | None, seed: int, least: int
) -> tuple[Array, Array, Array]:
    """(lower and upper quantile of the pivot, p of mean 0), each [M]."""
    draws, count, columns = deviations.shape
    observed = _pivot(mean, error)
    if draws == 1 and count <= EXACT:
        times, weights = enumerated(count)
        pivots = _pivots(deviations, times, None)
        return (*_limits(pivots, weights, level)[:2], _tails(pivots, weights, observed))
    found = np.full((3, columns), np.nan)
    left, size = np.arange(columns), least
    while len(left):
        times, picks = _drawn(draws, count, size, seed)
        pivots = _pivots(deviations[:, :, left], times, picks)
        weights = np.full(len(times), 1 / len(times))
        below, above, noise = _limits(pivots, weights, level)
        found[:, left] = below, above, _tails(pivots, weights, observed[left], extra=1 / (size + 1))
        with np.errstate(invalid="ignore"):
            rough = noise > MONTE_CARLO * (above - below)
        left = left[rough] if size < MOST_DRAWS and level is not None else left[:0]
        size *= 4
    return found[0], found[1], found[2]


@functools.cache
def enumerated(count: int) -> tuple[Array, Array]:
    """All draws of `count` units with replacement: multiplicities [K, count] and probabilities [K].

    K = (2 count - 1 choose count); 6,435 for 8 units.
    """
    bars = itertools.combinations(range(2 * count - 1), count - 1)
    places = np.array([(-1, *bar, 2 * count - 1) for bar in bars])
    times = np.diff(places, axis=1) - 1
    logs = math.lgamma(count + 1) - np.vectorize(math.lgamma)(times + 1.0).sum(axis=1)
    weights = np.exp(logs - count * math.log(count))
    return times.astype(np.float64), weights / weights.sum()


@functools.lru_cache(maxsize=4)
def _drawn(draws: int, count: int, size: int, seed: int) -> tuple[Array, Array | None]:
    """Multiplicities of units [R, N] and draws [R, D] in each of R = `size` bootstrap draws."""
    rng = np.random.default_rng([seed, draws, count])
    times = rng.multinomial(count, np.full(count, 1 / count), size).astype(np.float64)
    if draws == 1:
        return times, None
    return times, rng.multinomial(draws, np.full(draws, 1 / draws), size).astype(np.float64)


def _pivots(deviations: Array, times: Array, picks: Array | None) -> Array:
    """mean* / error* of deviations from the mean [D, N, M] under R bootstrap draws, [R, M]."""
    _, count, columns = deviations.shape
    if picks is None:
        mean = times @ deviations[0] / count
        variance = (times @ deviations[0] ** 2 / count - mean**2) / (count - 1)
    else:
        crossed = [_crossed(deviations[:, :, column], times, picks) for column in range(columns)]
        mean, variance = (np.stack(part, axis=1) for part in zip(*crossed, strict=True))
    scale = (deviations**2).mean(axis=(0, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        # a draw of one unit only has no spread: its pivot is infinite
        error = np.sqrt(np.where(variance > _ROUNDING * scale / count, variance, 0.0))
        return np.asarray(np.where((mean == 0) & (error == 0), 0.0, mean / error))


def _crossed(x: Array, times: Array, picks: Array) -> tuple[Array, Array]:
    """Means [R] and their variances [R] of [D, N] under draws of both; see `standard_errors`."""
    draws, count = x.shape
    of_units = picks @ x / draws  # [R, N]
    of_draws = times @ x.T / count  # [R, D]
    mean = (times * of_units).sum(axis=1) / count
    squares = (times * (picks @ x**2)).sum(axis=1)
    by_units = (times * of_units**2).sum(axis=1) - count * mean**2
    by_draws = (picks * of_draws**2).sum(axis=1) - draws * mean**2
    rest = squares - draws * by_units - count * by_draws - draws * count * mean**2
    units = by_units / (count - 1) / count
    drawn = by_draws / (draws - 1) / draws
    both = rest / ((draws - 1) * (count - 1)) / (draws * count)
    return mean, np.maximum(np.maximum(units, drawn), units + drawn - both)


def _limits(pivots: Array, weights: Array, level: float | None) -> tuple[Array, Array, Array]:
    """(lower quantile, upper quantile, Monte Carlo error of the worse one) of each column, [M] each."""
    if level is None:
        nothing = np.full(pivots.shape[1], np.nan)
        return nothing, nothing, nothing
    order = np.argsort(pivots, axis=0, kind="stable")
    ordered = np.take_along_axis(pivots, order, axis=0)
    below = np.cumsum(weights[order], axis=0)
    tail = (1 - level) / 2
    last = len(pivots) - 1
    step = math.sqrt(tail * (1 - tail) / len(pivots))

    def at(share: float) -> Array:
        places = np.minimum((below < share - 1e-12).sum(axis=0), last)
        return np.asarray(np.take_along_axis(ordered, places[None], axis=0)[0], np.float64)

    def noise(share: float) -> Array:
        with np.errstate(invalid="ignore"):
            return np.asarray((at(min(1.0, share + step)) - at(max(0.0, share - step))) / 2)

    return at(tail), at(1 - tail), np.asarray(np.fmax(noise(tail), noise(1 - tail)))


def _tails(pivots: Array, weights: Array, observed: Array, extra: float = 0.0) -> Array:
    """Two-sided p-values [M]: twice the smaller share of pivots at or beyond the observed ones.

    extra : the weight of the observed pivot among drawn ones, so that no p-value is 0 by chance
    """
    with np.errstate(invalid="ignore"):
        above = weights @ (pivots >= observed)
        below = weights @ (pivots <= observed)
    smaller = np.minimum(above, below)
    return np.asarray(np.minimum(1.0, 2 * (smaller * (1 - extra) + extra)))
