"""Quantities of a configuration that no model changes, computed once: seasonal errors and the baseline."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from tsprune.data.suite import Configuration
from tsprune.evaluation.batching import Batch
from tsprune.evaluation.metrics import (
    CRPS_LEVELS,
    INTERVAL_ALPHA,
    WindowStatistics,
    seasonal_errors,
    window_statistics,
)
from tsprune.evaluation.seasonal_naive import naive_quantiles

if TYPE_CHECKING:
    from tsprune.models.forecaster import Forecast

# bounds the memory that Seasonal Naive's quantiles take at long horizons
_BASELINE_CHUNK = 512


@dataclasses.dataclass(frozen=True)
class Preparation:
    """Quantities of the N windows of a configuration that all models and ablations share.

    season_errors : float64 [N], see `metrics.seasonal_errors`
    baseline : Seasonal Naive's statistics
    """

    season_errors: NDArray[np.float64]
    baseline: WindowStatistics


# it lives as long as the configuration, in this process: nothing of it is pickled to workers
_prepared: WeakKeyDictionary[Configuration, Preparation] = WeakKeyDictionary()
_lock = threading.Lock()


def prepare(configuration: Configuration) -> Preparation:
    """Seasonal errors and Seasonal Naive's statistics over whole histories, computed at the first call."""
    with _lock:
        known = _prepared.get(configuration)
    if known is None:
        computed = _computed(configuration)  # not under the lock: threads may prepare side by side
        with _lock:
            known = _prepared.setdefault(configuration, computed)
    return known


def _computed(c: Configuration) -> Preparation:
    season_errors = seasonal_errors(c.contexts, c.season)
    parts = []
    for start in range(0, len(c), _BASELINE_CHUNK):
        chunk = slice(start, start + _BASELINE_CHUNK)
        quantiles = naive_quantiles(c.contexts[chunk], horizon=c.horizon, season=c.season)
        parts.append(
            window_statistics(
                quantiles=quantiles,
                levels=CRPS_LEVELS,
                targets=c.targets[chunk],
                season_errors=season_errors[chunk],
            )
        )
    return Preparation(season_errors, WindowStatistics.concatenate(parts))


@dataclasses.dataclass(frozen=True)
class Truth:
    """Targets and scales of B windows, against which their forecasts are scored.

    targets : float32 [B, H], NaN where unknown
    season_errors : float64 [B], see `metrics.seasonal_errors`
    """

    targets: NDArray[np.float32]
    season_errors: NDArray[np.float64]

    def select(self, places: Sequence[int]) -> Truth:
        """The windows at some places, in that order."""
        chosen = list(places)
        return Truth(self.targets[chosen], self.season_errors[chosen])

    def statistics(self, forecast: Forecast) -> WindowStatistics:
        """Statistics of a forecast of these windows."""
        with np.errstate(invalid="ignore"):  # callers leave out windows without a finite forecast
            mean, interval = _from_samples(forecast)
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


def _from_samples(
    forecast: Forecast,
) -> tuple[NDArray[np.floating] | None, NDArray[np.floating] | None]:
    """Mean [B, H] and 95 % interval [B, 2, H] of sampled paths, as gluonts' SampleForecast has them."""
    if forecast.samples is None:
        return None, None
    ordered = np.sort(forecast.samples, axis=1)
    last = ordered.shape[1] - 1
    tails = [round(last * level) for level in (INTERVAL_ALPHA / 2, 1 - INTERVAL_ALPHA / 2)]
    return forecast.samples.mean(axis=1, dtype=np.float64), ordered[:, tails]
