"""Seasonal Naive as GIFT-Eval publishes it: the baseline of every relative score.

The published figures are StatsForecast's SeasonalNaive with its normal prediction intervals
(statsforecast.models.SeasonalNaive.forecast): the last season repeated, sigma^2 the mean squared
seasonal difference of the history, growing by itself with every further season of the horizon.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tsprune.data.suite import Configuration
from tsprune.evaluation.metrics import CRPS_LEVELS

if TYPE_CHECKING:
    from tsprune.models.forecaster import Forecast


def seasonal_naive(configuration: Configuration) -> Forecast:
    """Seasonal Naive's forecast of every window of a configuration: quantiles [N, 9, H].

    Missing values are filled with the last known one before, those in front with the first known
    one; a history without any is taken as zeros (gluonts' LastValueImputation). A history shorter
    than a season repeats its last value.
    """
    # brings in torch, which the metrics do not need
    from tsprune.models.forecaster import Forecast

    quantiles = naive_quantiles(
        configuration.contexts, horizon=configuration.horizon, season=configuration.season
    )
    return Forecast(quantiles=quantiles.astype(np.float32), levels=CRPS_LEVELS)


def naive_quantiles(contexts: Sequence[ArrayLike], *, horizon: int, season: int) -> NDArray[np.float64]:
    """Seasonal Naive's quantiles at .1, ..., .9 of N histories, [N, 9, H]; no history is zero."""
    points = np.empty((len(contexts), horizon))
    sigmas = np.empty((len(contexts), horizon))
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


def _filled(history: NDArray[np.floating]) -> NDArray[np.float64]:
    values = history.astype(np.float64)
    known = np.isfinite(values)
    if known.all():
        return values
    if not known.any():
        return np.zeros_like(values)
    last_known = np.maximum.accumulate(np.where(known, np.arange(len(values)), -1))
    last_known[last_known < 0] = np.flatnonzero(known)[0]
    return np.asarray(values[last_known])
