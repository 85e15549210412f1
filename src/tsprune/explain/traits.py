"""Traits of the forecasts of a whole suite, and their excess over the true future's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsprune.data.suite import Configuration, Suite
from tsprune.evaluation import batches
from tsprune.explain.forecast_traits import dominant_period, mean_reversions, parrotings, seasonal_shares
from tsprune.models.forecaster import Predictor

TRAITS = ("parroting", "seasonality", "mean_reversion")
BATCH_SIZE = 64

Traits = dict[str, NDArray[np.float64]]


def traits(
    values: NDArray[np.floating], configuration: Configuration, rows: NDArray[np.int64], cut: int
) -> Traits:
    """Each of `TRAITS` of forecasts (or futures) [M, H] of the windows `rows`, each [M].

    cut : the model's context length; what it cannot see it cannot parrot
    """
    contexts = [configuration.contexts[row][-cut:] for row in rows]
    return traits_of(values, contexts, [dominant_period(context) for context in contexts])


def traits_of(
    values: NDArray[np.floating], contexts: Sequence[NDArray[np.float32]], periods: Sequence[float]
) -> Traits:
    """Each of `TRAITS` of `values` [M, H] on their contexts, whose dominant periods are known; [M] each.

    NaN where a value is.
    """
    one_by_one = zip(values, contexts, periods, strict=True)
    found = [traits_on(value[None], context, period)[:, 0] for value, context, period in one_by_one]
    table = np.stack(found, axis=1) if found else np.empty((len(TRAITS), 0))
    return dict(zip(TRAITS, table, strict=True))


def traits_on(
    values: NDArray[np.floating], context: NDArray[np.float32], period: float
) -> NDArray[np.float64]:
    """`TRAITS` of `values` [M, H], all of them on one context [T] of this period: [traits, M].

    NaN where a value is.
    """
    found = np.full((len(TRAITS), len(values)), np.nan)
    known = np.isfinite(values).all(axis=1)
    if known.any():
        own = values[known]
        found[0, known] = parrotings(own, context)
        found[1, known] = seasonal_shares(own, period)
        found[2, known] = mean_reversions(own, context)
    return found


def forecast_traits(model: Predictor, suite: Suite, *, batch_size: int = BATCH_SIZE) -> pd.DataFrame:
    """Traits of a model's median forecasts, one row a window.

    model : a Forecaster, or a baseline such as `parrot()`

    Columns: configuration, window, series; parroting, seasonality (share of power at the dominant
    period), mean_reversion of the forecast; excess_parroting, seasonality_bias and excess_mean_reversion:
    those minus the true future's (arXiv 2505.11349, 2602.01605). NaN where a forecast or a future has none.

    Raises TspruneError for a suite without windows.
    """
    suite.require_windows()
    parts = []
    for c in suite.configurations:
        for batch in batches(c, context_length=model.context_length, batch_size=batch_size):
            forecast = model.forecast(batch.contexts, c.horizon)
            periods = [dominant_period(view) for view in batch.views]
            own = traits_of(forecast.median, batch.views, periods)
            true = traits_of(c.targets[batch.rows], batch.views, periods)
            what = {"configuration": c.name, "window": batch.rows, "series": c.series[batch.rows]}
            excess = {EXCESS[trait]: own[trait] - true[trait] for trait in TRAITS}
            parts.append(pd.DataFrame(what | own | excess).sort_values("window"))
    return pd.concat(parts, ignore_index=True)


EXCESS = {
    "parroting": "excess_parroting",
    "seasonality": "seasonality_bias",
    "mean_reversion": "excess_mean_reversion",
}
