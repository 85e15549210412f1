"""Quantities of a configuration that no model changes: seasonal errors, and the baseline Seasonal Naive.

Seasonal Naive is the baseline of every relative score. GIFT-Eval's published figures are those of
StatsForecast's SeasonalNaive with its normal prediction intervals (statsforecast.models.SeasonalNaive): the
last season repeated; sigma^2 is the mean squared seasonal difference of the history, once more for every
further season of the horizon.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tsprune.data.suite import Configuration
from tsprune.evaluation.batching import Batch
from tsprune.evaluation.metrics import (
    CRPS_LEVELS,
    INTERVAL_ALPHA,
    WindowStatistics,
    seasonal_errors,
    window_statistics,
)
from tsprune.statistics.estimate import Array

if TYPE_CHECKING:
    from tsprune.models.forecaster import Forecast

# windows; bounds the memory that Seasonal Naive's quantiles take at long horizons
_CHUNK = 512


def seasonal_naive(configuration: Configuration) -> Forecast:
    """Seasonal Naive's forecast of every window of a configuration: quantiles [N, 9, H].

    Missing values take the last known value before them, or the first known one after them; a history
    without values is zeros (gluonts' LastValueImputation). A history shorter than a season repeats its last
    value.
    """
    from tsprune.models.forecaster import Forecast  # imports torch

    c = configuration
    quantiles = naive_quantiles(c.contexts, horizon=c.horizon, season=c.season)
    return Forecast(quantiles=quantiles.astype(np.float32), levels=CRPS_LEVELS)


def naive_quantiles(contexts: Sequence[ArrayLike], *, horizon: int, season: int) -> Array:
    """Seasonal Naive's quantiles at .1, ..., .9 of N histories, [N, 9, H]; an empty history is zero."""
    points, sigmas = np.empty((len(contexts), horizon)), np.empty((len(contexts), horizon))
    for row, context in enumerate(contexts):
        history = _filled(np.asarray(context))
        lag = season if len(history) >= season else 1
        difference = history[lag:] - history[:-lag]
        # not a dot product: BLAS would wake threads for it, at many times the cost
        variance = float(np.square(difference).mean()) if len(difference) else 0.0
        points[row] = np.resize(history[-lag:], horizon)
        sigmas[row] = np.sqrt(variance * (1 + np.arange(horizon) // lag))
    z = np.array([NormalDist().inv_cdf(level) for level in CRPS_LEVELS])[None, :, None]
    return np.asarray(points[:, None] + z * sigmas[:, None])


def _filled(history: NDArray[np.floating]) -> Array:
    values = history.astype(np.float64)
    known = np.isfinite(values)
    if known.all():
        return values
    if not known.any():
        return np.zeros_like(values)
    last_known = np.maximum.accumulate(np.where(known, np.arange(len(values)), -1))
    last_known[last_known < 0] = np.flatnonzero(known)[0]
    return np.asarray(values[last_known])


@dataclasses.dataclass(frozen=True)
class Preparation:
    """Quantities of the N windows of a configuration that all models and ablations share.

    season_errors : float64 [N], see `metrics.seasonal_errors`
    baseline : Seasonal Naive's statistics
    """

    season_errors: Array
    baseline: WindowStatistics


# an entry lives as long as its configuration, in this process: it is not pickled to workers
_prepared: WeakKeyDictionary[Configuration, Preparation] = WeakKeyDictionary()
_lock = threading.Lock()


def prepare(configuration: Configuration) -> Preparation:
    """Seasonal errors and Seasonal Naive's statistics over whole histories, computed at the first call."""
    with _lock:
        known = _prepared.get(configuration)
    if known is None:
        computed = _computed(configuration)  # outside the lock, so that threads prepare side by side
        with _lock:
            known = _prepared.setdefault(configuration, computed)
    return known


def _computed(c: Configuration) -> Preparation:
    season_errors = seasonal_errors(c.contexts, c.season)
    parts = []
    for start in range(0, len(c), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        quantiles = naive_quantiles(c.contexts[chunk], horizon=c.horizon, season=c.season)
        known, scale = c.targets[chunk], season_errors[chunk]
        parts.append(
            window_statistics(quantiles=quantiles, levels=CRPS_LEVELS, targets=known, season_errors=scale)
        )
    return Preparation(season_errors, WindowStatistics.concatenate(parts))


@dataclasses.dataclass(frozen=True)
class Truth:
    """Targets and scales of B windows, against which their forecasts are scored.

    targets : float32 [B, H], NaN where unknown
    season_errors : float64 [B], see `metrics.seasonal_errors`
    """

    targets: NDArray[np.float32]
    season_errors: Array

    def select(self, places: Sequence[int]) -> Truth:
        """The windows at some places, in that order."""
        return Truth(self.targets[list(places)], self.season_errors[list(places)])

    def statistics(self, forecast: Forecast) -> WindowStatistics:
        """Statistics of a forecast of these windows.

        Mean and 95 % interval of sampled paths are those of gluonts' SampleForecast.
        """
        mean = interval = None
        with np.errstate(invalid="ignore"):  # callers leave out windows without a finite forecast
            if forecast.samples is not None:
                ordered = np.sort(forecast.samples, axis=1)
                last = ordered.shape[1] - 1
                tails = [round(last * level) for level in (INTERVAL_ALPHA / 2, 1 - INTERVAL_ALPHA / 2)]
                mean, interval = forecast.samples.mean(axis=1, dtype=np.float64), ordered[:, tails]
            return window_statistics(
                quantiles=forecast.quantiles,
                levels=forecast.levels,
                targets=self.targets,
                season_errors=self.season_errors,
                mean=mean,
                interval=interval,
            )


def truth_of(configurations: Sequence[Configuration], batch: Batch) -> Truth:
    """Targets and scales of a batch, whose numbers refer to `configurations`.

    Steps after a window's own horizon are unknown: they do not count.
    """
    targets = np.full((len(batch), batch.horizon), np.nan, dtype=np.float32)
    season_errors = np.empty(len(batch))
    for number, places in batch.members.items():
        configuration, rows = configurations[number], batch.rows[places]
        targets[places, : configuration.horizon] = configuration.targets[rows]
        season_errors[places] = prepare(configuration).season_errors[rows]
    return Truth(targets, season_errors)
