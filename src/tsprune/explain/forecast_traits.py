"""Traits of forecasts, alone and over a suite: copying of the context, seasonality, decay; their excess."""

from __future__ import annotations

from typing import Unpack

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.signal import periodogram

from tsprune.arguments import checked
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.evaluation import prepare
from tsprune.evaluation.batching import shared_batches
from tsprune.memory import in_parts
from tsprune.models.forecaster import Predictor
from tsprune.progress import counted
from tsprune.run_options import Options, RunOptions
from tsprune.schema import Column, Schema
from tsprune.statistics.estimate import Array

_Values = NDArray[np.floating]
_HARMONICS = 3
# variation below this share of the largest value is rounding
_FLAT = 1e-10

# trait -> column of its excess over the true future's
EXCESS = {
    "parroting": "excess_parroting",
    "seasonality": "seasonality_bias",
    "mean_reversion": "excess_mean_reversion",
}
TRAITS = tuple(EXCESS)

FORECAST_TRAITS = Schema(
    "forecast_traits",
    Column("configuration", "of the window", dtype="text"),
    Column("window", "number in its configuration", dtype="count"),
    Column("series", "number in its configuration", dtype="count"),
    Column("error", "mean absolute error over the seasonal error, as in MASE", "seasonal errors"),
    Column("parroting", "highest correlation of the forecast with a segment of its context"),
    Column("seasonality", "variance of the forecast at the context's dominant period", "share"),
    Column("mean_reversion", "distance to the context's mean lost with each step", "share"),
    *(Column(excess, f"{trait} minus the true future's") for trait, excess in EXCESS.items()),
)


def filled(context: _Values) -> Array:
    """A history [T] as float64 with gaps interpolated linearly (at the ends: the nearest value)."""
    series = pd.Series(context, dtype=np.float64)
    return np.asarray(series.interpolate(limit_direction="both"), dtype=np.float64)


def parroting(forecast: _Values, context: _Values) -> float:
    """Highest correlation of the forecast with a segment of its context: max over t of corr(f, x[t:t+H]).

    forecast : [H]; context : [T], NaN where missing

    Pearson correlation, in [-1, 1] (arXiv 2505.11349). NaN if the forecast or every segment of the
    context is constant, or the context is shorter than the forecast.
    """
    return float(parrotings(np.asarray(forecast)[None], context)[0])


def parrotings(forecasts: _Values, context: _Values) -> Array:
    """`parroting` of M forecasts [M, H] of one context [T], [M]; the segments are prepared once."""
    x, f = filled(context), np.asarray(forecasts, dtype=np.float64)
    horizon = f.shape[1]
    found = np.full(len(f), np.nan)
    varied = ~_all_constant(f)
    if len(x) < horizon or horizon < 2 or not varied.any() or _all_constant(x[None]).all():
        return found
    segments = np.lib.stride_tricks.sliding_window_view(x, horizon)
    deviations = segments - segments.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(deviations, axis=1)
    usable = norms > _FLAT * np.abs(x).max() * np.sqrt(horizon)
    if not usable.any():
        return found
    own = f[varied] - f[varied].mean(axis=1, keepdims=True)
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    correlations = (deviations[usable] / norms[usable, None]) @ own.T
    found[varied] = np.clip(correlations.max(axis=0), -1, 1)
    return found


def dominant_period(context: _Values) -> float:
    """Period, in steps, of the highest peak of the detrended periodogram; NaN without a peak.

    context : [T], NaN where missing; periods from 2 steps to half the context are searched

    A parabola through the logarithm of the periodogram places the peak between its frequencies. The result
    is rounded to a whole number of steps within a quarter of their spacing: periods of calendars are whole,
    and a horizon of 12 holds a period of 12 but not one of 12.05.
    """
    x = filled(context)
    if len(x) < 8 or _all_constant(x[None]).all():
        return float("nan")
    frequency, power = periodogram(x / np.abs(x).max(), detrend="linear", window="hann")
    allowed = np.flatnonzero(frequency >= 2 / len(x))
    if not len(allowed) or power[allowed].max() <= _FLAT**2:
        return float("nan")
    peak = int(allowed[power[allowed].argmax()])
    shift = 0.0  # of the parabola's top, in [-0.5, 0.5] steps
    if peak + 1 < len(power):
        left, top, right = np.log(power[peak - 1 : peak + 2] + _FLAT * power[peak])
        curvature = left - 2 * top + right
        shift = float(np.clip(0.5 * (left - right) / curvature, -0.5, 0.5)) if curvature < 0 else 0.0
    found = frequency[peak] + shift / len(x)
    whole = round(1 / found)
    return float(whole) if abs(1 / whole - found) <= 0.25 / len(x) else float(1 / found)


def _all_constant(values: Array) -> NDArray[np.bool_]:
    """Whether no value of a row [T] of `values` [M, T] varies by more than rounding, or one is NaN, [M]."""
    size = np.abs(values).max(axis=1)
    with np.errstate(invalid="ignore"):
        varied: NDArray[np.bool_] = np.isfinite(size) & (np.ptp(values, axis=1) > _FLAT * size)
    return ~varied


def seasonal_share(values: _Values, period: float) -> float:
    """Share of the variance of `values` [H] at `period` (steps) and its next two harmonics, in [0, 1].

    Least squares with sines and cosines. NaN if the horizon is shorter than the period, or the values are
    constant.
    """
    return float(seasonal_shares(np.asarray(values)[None], period)[0])


def seasonal_shares(values: _Values, period: float) -> Array:
    """`seasonal_share` of each row of `values` [M, H], [M]."""
    y = np.asarray(values, dtype=np.float64)
    horizon = y.shape[1]
    found = np.full(len(y), np.nan)
    count = min(_HARMONICS, int(period // 2)) if np.isfinite(period) else 0
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


def mean_reversion(forecast: _Values, context: _Values) -> float:
    """Share of the distance to the context's mean that a forecast loses with each step.

    forecast : [H]; context : [T], NaN where missing

    One minus the slope of d[h] on d[h - 1] through the origin (an AR(1) fit by least squares): d[0] is the
    last value of the context minus its mean, d[h] the forecast minus that mean. 1: the forecast jumps to
    the mean; 0: it keeps its distance; below 0: it diverges. NaN where context and forecast stay at the mean.
    """
    return float(mean_reversions(np.asarray(forecast)[None], context)[0])


def mean_reversions(forecasts: _Values, context: _Values) -> Array:
    """`mean_reversion` of M forecasts [M, H] of one context [T], [M]."""
    x, f = filled(context), np.asarray(forecasts, dtype=np.float64)
    mean = x.mean()
    d = np.column_stack([np.full(len(f), x[-1]), f]) - mean
    size = _FLAT * max(np.abs(x).max(), abs(mean))
    before = d[:, :-1]
    known = np.isfinite(d).all(axis=1)
    known[known] &= np.abs(before[known]).max(axis=1) > size
    found = np.full(len(f), np.nan)
    found[known] = 1 - (before * d[:, 1:])[known].sum(axis=1) / (before[known] ** 2).sum(axis=1)
    return found


def traits_on(values: NDArray[np.floating], context: NDArray[np.float32], period: float) -> Array:
    """`TRAITS` of `values` [M, H] on one context [T] with this dominant period: [traits, M].

    NaN where a value is NaN.
    """
    found = np.full((len(TRAITS), len(values)), np.nan)
    known = np.isfinite(values).all(axis=1)
    if known.any():
        own = values[known]
        found[0, known] = parrotings(own, context)
        found[1, known] = seasonal_shares(own, period)
        found[2, known] = mean_reversions(own, context)
    return found


@checked
def forecast_traits(model: Predictor, suite: Suite, **options: Unpack[Options]) -> pd.DataFrame:
    """Traits of a model's median forecasts, one row per window; columns in `FORECAST_TRAITS`.

    model : a Forecaster, or a baseline such as `Parrot()`
    options : keywords of `tsprune.run_options.RunOptions`: `batch_size` and `progress` (windows)

    A trait is NaN where it is undefined (arXiv 2505.11349, 2602.01605).

    Raises TspruneError for a suite without windows that can be forecast.
    """
    suite.require_windows()
    chosen = RunOptions(**options)
    parts: list[pd.DataFrame] = []
    batches = shared_batches(
        suite.configurations, context_length=model.context_length, batch_size=chosen.batch_size
    )
    for batch in counted(batches, chosen.progress, "traits"):
        forecasts = in_parts(lambda some: model.forecast(some, batch.horizon).median, batch.contexts)  # noqa: B023
        median = np.concatenate([found for _, found in forecasts])
        for number, places in batch.members.items():
            c, rows = suite.configurations[number], batch.rows[places]
            contexts = [c.contexts[row][-model.context_length :] for row in rows]
            periods = [dominant_period(context) for context in contexts]
            own, true = (
                np.stack(
                    [traits_on(*x)[:, 0] for x in zip(values[:, None], contexts, periods, strict=True)],
                    axis=1,
                )
                for values in (median[places], c.targets[rows])
            )  # [traits, windows] each
            columns: dict[str, object] = {"configuration": c.name, "window": rows, "series": c.series[rows]}
            season = prepare(c).season_errors[rows, None]
            columns["error"] = scaled_errors(median[places], c.targets[rows], season)
            columns |= zip(TRAITS, own, strict=True)
            columns |= zip(EXCESS.values(), own - true, strict=True)
            parts.append(pd.DataFrame(columns | {"place": number}))
    if not parts:
        raise TspruneError(f"no window of {suite.name} can be forecast; none has an observed history")
    frame = pd.concat(parts).sort_values(["place", "window"], ignore_index=True)
    return FORECAST_TRAITS.checked(frame.drop(columns="place"))


def scaled_errors(
    values: NDArray[np.floating], target: NDArray[np.floating], season_error: ArrayLike
) -> Array:
    """Mean absolute error of forecasts [M, H] over seasonal errors, [M], of the steps where it is known.

    target, season_error : broadcast to the forecasts; NaN where no step's error is known
    """
    with np.errstate(all="ignore"):
        errors = np.abs(values - target) / season_error
        known = np.isfinite(errors)
        return np.asarray(np.where(known, errors, 0).sum(axis=1) / known.sum(axis=1), dtype=np.float64)
