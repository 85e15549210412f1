"""Properties of a single forecast: how much it copies its context, how seasonal it is."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.signal import periodogram

Array = NDArray[np.floating]
HARMONICS = 3


def filled(context: Array) -> NDArray[np.float64]:
    """A history [T] as float64 with gaps interpolated linearly (at the ends: the nearest value)."""
    return pd.Series(context, dtype=np.float64).interpolate(limit_direction="both").to_numpy()


def parroting(forecast: Array, context: Array) -> float:
    """How well the forecast can be found in its own context: max over t of corr(f, x[t:t+H]).

    forecast : [H]; context : [T], NaN where missing

    Pearson correlation, in [-1, 1] (arXiv 2505.11349). NaN if the forecast or every segment of the
    context is constant, or the context is shorter than the forecast.
    """
    x, f = filled(context), np.asarray(forecast, dtype=np.float64)
    if len(x) < len(f) or len(f) < 2:
        return float("nan")
    segments = np.lib.stride_tricks.sliding_window_view(x, len(f))
    deviations = segments - segments.mean(axis=1, keepdims=True)
    f = f - f.mean()
    norms = np.linalg.norm(deviations, axis=1) * np.linalg.norm(f)
    # relative to the size of the values, so that rounding of a constant does not count as shape
    usable = norms > 1e-10 * (1 + np.abs(x).max()) ** 2
    if not usable.any():
        return float("nan")
    return float((deviations[usable] @ f / norms[usable]).max())


def dominant_period(context: Array) -> float:
    """Period, in steps, of the highest peak of the detrended periodogram; NaN if there is none.

    context : [T], NaN where missing; periods from 2 steps to half the context count
    """
    x = filled(context)
    if len(x) < 8:
        return float("nan")
    frequency, power = periodogram(x, detrend="linear", window="hann")
    allowed = frequency >= 2 / len(x)
    if not allowed.any() or power[allowed].max() <= 1e-12 * (1 + np.abs(x).max()) ** 2:
        return float("nan")
    return float(1 / frequency[allowed][power[allowed].argmax()])


def seasonal_share(values: Array, period: float) -> float:
    """Share of the variance of `values` [H] at `period` (steps) and its first harmonics, in [0, 1].

    Sines and cosines at the period and up to `HARMONICS` - 1 of its harmonics are fitted by least
    squares. NaN if the horizon does not hold a whole period, or the values are constant.
    """
    y = np.asarray(values, dtype=np.float64)
    y = y - y.mean()
    total = float(y @ y)
    count = min(HARMONICS, int(period // 2)) if np.isfinite(period) else 0
    if count < 1 or len(y) < max(period, 4 * count) or total <= 1e-12 * (1 + np.abs(values).max()) ** 2:
        return float("nan")
    phase = 2 * np.pi * np.outer(np.arange(len(y)), np.arange(1, count + 1)) / period
    basis = np.hstack([np.cos(phase), np.sin(phase)])
    basis = basis - basis.mean(axis=0)
    fitted = basis @ np.linalg.lstsq(basis, y, rcond=None)[0]
    return float(fitted @ fitted / total)
