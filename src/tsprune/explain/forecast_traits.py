"""Properties of a single forecast: how much it copies its context, how seasonal it is, how it decays."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.signal import periodogram

Array = NDArray[np.floating]
HARMONICS = 3
# variation below this share of the size of the values is rounding, not shape
FLAT = 1e-10


def filled(context: Array) -> NDArray[np.float64]:
    """A history [T] as float64 with gaps interpolated linearly (at the ends: the nearest value)."""
    series = pd.Series(context, dtype=np.float64)
    return np.asarray(series.interpolate(limit_direction="both"), dtype=np.float64)


def parroting(forecast: Array, context: Array) -> float:
    """How well the forecast can be found in its own context: max over t of corr(f, x[t:t+H]).

    forecast : [H]; context : [T], NaN where missing

    Pearson correlation, in [-1, 1] (arXiv 2505.11349). NaN if the forecast or every segment of the
    context is constant, or the context is shorter than the forecast.
    """
    return float(parrotings(np.asarray(forecast)[None], context)[0])


def parrotings(forecasts: Array, context: Array) -> NDArray[np.float64]:
    """`parroting` of M forecasts [M, H] of one context [T], [M]: its segments are prepared once."""
    x, f = filled(context), np.asarray(forecasts, dtype=np.float64)
    horizon = f.shape[1]
    found = np.full(len(f), np.nan)
    varied = ~_all_constant(f)
    if len(x) < horizon or horizon < 2 or not varied.any() or _constant(x):
        return found
    segments = np.lib.stride_tricks.sliding_window_view(x, horizon)
    deviations = segments - segments.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(deviations, axis=1)
    usable = norms > FLAT * np.abs(x).max() * np.sqrt(horizon)
    if not usable.any():
        return found
    own = f[varied] - f[varied].mean(axis=1, keepdims=True)
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    correlations = (deviations[usable] / norms[usable, None]) @ own.T
    found[varied] = np.clip(correlations.max(axis=0), -1, 1)
    return found


def dominant_period(context: Array) -> float:
    """Period, in steps, of the highest peak of the detrended periodogram; NaN if there is none.

    context : [T], NaN where missing; periods from 2 steps to half the context count

    The peak is placed between the periodogram's frequencies by a parabola through its logarithm; a
    whole number of steps that is within a quarter of their spacing is taken (a calendar's periods are
    whole, and a horizon of 12 holds one of 12 but none of 12.05).
    """
    x = filled(context)
    if len(x) < 8 or _constant(x):
        return float("nan")
    frequency, power = periodogram(x / np.abs(x).max(), detrend="linear", window="hann")
    allowed = np.flatnonzero(frequency >= 2 / len(x))
    if not len(allowed) or power[allowed].max() <= FLAT**2:
        return float("nan")
    peak = int(allowed[power[allowed].argmax()])
    found = frequency[peak] + _parabola_top(power, peak) / len(x)
    whole = round(1 / found)
    return float(whole) if abs(1 / whole - found) <= 0.25 / len(x) else float(1 / found)


def _parabola_top(power: NDArray[np.float64], peak: int) -> float:
    """Where, in steps from `peak`, the parabola through three log powers has its top, in [-0.5, 0.5]."""
    if peak + 1 >= len(power):
        return 0.0
    left, top, right = np.log(power[peak - 1 : peak + 2] + FLAT * power[peak])
    curvature = left - 2 * top + right
    return float(np.clip(0.5 * (left - right) / curvature, -0.5, 0.5)) if curvature < 0 else 0.0


def _constant(values: NDArray[np.float64]) -> bool:
    """Whether nothing varies, or nothing is known; rounding of a constant is no variation."""
    return bool(_all_constant(values[None])[0])


def _all_constant(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """`_constant` of each row of `values` [M, T], [M]."""
    size = np.abs(values).max(axis=1)
    with np.errstate(invalid="ignore"):
        varied: NDArray[np.bool_] = np.isfinite(size) & (np.ptp(values, axis=1) > FLAT * size)
    return ~varied


def seasonal_share(values: Array, period: float) -> float:
    """Share of the variance of `values` [H] at `period` (steps) and its first harmonics, in [0, 1].

    Sines and cosines at the period and up to `HARMONICS` - 1 of its harmonics are fitted by least
    squares. NaN if the horizon does not hold a whole period, or the values are constant.
    """
    return float(seasonal_shares(np.asarray(values)[None], period)[0])


def seasonal_shares(values: Array, period: float) -> NDArray[np.float64]:
    """`seasonal_share` of each row of `values` [M, H], [M]."""
    y = np.asarray(values, dtype=np.float64)
    horizon = y.shape[1]
    found = np.full(len(y), np.nan)
    count = min(HARMONICS, int(period // 2)) if np.isfinite(period) else 0
    varied = ~_all_constant(y)
    if count < 1 or horizon < max(period, 4 * count) or not varied.any():
        return found
    y = y[varied] - y[varied].mean(axis=1, keepdims=True)
    phase = 2 * np.pi * np.outer(np.arange(horizon), np.arange(1, count + 1)) / period
    basis = np.hstack([np.cos(phase), np.sin(phase)])
    basis = basis - basis.mean(axis=0)
    fitted = (basis @ np.linalg.lstsq(basis, y.T, rcond=None)[0]).T
    found[varied] = (fitted**2).sum(axis=1) / (y**2).sum(axis=1)
    return found


def mean_reversion(forecast: Array, context: Array) -> float:
    """Share of its distance to the context's mean that a forecast loses with each step.

    forecast : [H]; context : [T], NaN where missing

    One minus the slope of d[h] on d[h - 1] through the origin (an AR(1) fit by least squares), d[0] the
    last value of the context minus its mean, d[h] the forecast minus that mean. 1 for a forecast that
    is at the mean at once, 0 for one that stays where it starts, below 0 for one that runs away. NaN
    where the context ends at its mean and the forecast stays there.
    """
    return float(mean_reversions(np.asarray(forecast)[None], context)[0])


def mean_reversions(forecasts: Array, context: Array) -> NDArray[np.float64]:
    """`mean_reversion` of M forecasts [M, H] of one context [T], [M]."""
    x, f = filled(context), np.asarray(forecasts, dtype=np.float64)
    mean = x.mean()
    d = np.column_stack([np.full(len(f), x[-1]), f]) - mean
    size = FLAT * max(np.abs(x).max(), abs(mean))
    before = d[:, :-1]
    known = np.isfinite(d).all(axis=1)
    known[known] &= np.abs(before[known]).max(axis=1) > size
    found = np.full(len(f), np.nan)
    found[known] = 1 - (before * d[:, 1:])[known].sum(axis=1) / (before[known] ** 2).sum(axis=1)
    return found
