"""Traits of the forecasts of a whole suite, and their excess over the true future's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from tsprune.arguments import checked
from tsprune.data.suite import Configuration, Suite
from tsprune.errors import TspruneError
from tsprune.evaluation import prepare
from tsprune.evaluation.batching import shared_batches
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


@checked
def forecast_traits(model: Predictor, suite: Suite, *, batch_size: int = BATCH_SIZE) -> pd.DataFrame:
    """Traits of a model's median forecasts, one row a window.

    model : a Forecaster, or a baseline such as `parrot()`

    Columns: configuration, window, series; error (mean absolute error over the seasonal error, as in MASE);
    parroting, seasonality (share of power at the dominant period), mean_reversion of the forecast;
    excess_parroting, seasonality_bias and excess_mean_reversion: those minus the true future's (arXiv
    2505.11349, 2602.01605). NaN where a forecast or a future has none.

    Raises TspruneError for a suite without windows that can be forecast.
    """
    suite.require_windows()
    parts = []
    for batch in shared_batches(
        suite.configurations, context_length=model.context_length, batch_size=batch_size
    ):
        median = model.forecast(batch.contexts, batch.horizon).median
        parts += [
            _of_windows(
                suite.configurations[number], batch.rows[places], median[places], model.context_length
            )
            for number, places in batch.members.items()
        ]
    order = {configuration.name: place for place, configuration in enumerate(suite.configurations)}
    if not parts:
        raise TspruneError(f"no window of {suite.name} can be forecast; none has an observed history")
    frame = pd.concat(parts, ignore_index=True)
    in_order = frame["configuration"].map(order).rename("place")
    return (
        frame.assign(place=in_order).sort_values(["place", "window"], ignore_index=True).drop(columns="place")
    )


def _of_windows(
    c: Configuration, rows: NDArray[np.int64], median: NDArray[np.float32], cut: int
) -> pd.DataFrame:
    """Rows of `forecast_traits`, of the windows `rows` of one configuration, forecast as `median` [M, H]."""
    contexts = [c.contexts[row][-cut:] for row in rows]
    periods = [dominant_period(context) for context in contexts]
    own, true = (traits_of(values, contexts, periods) for values in (median, c.targets[rows]))
    errors = scaled_errors(median, c.targets[rows], prepare(c).season_errors[rows, None])
    what = {"configuration": c.name, "window": rows, "series": c.series[rows], "error": errors}
    return pd.DataFrame(what | own | {EXCESS[trait]: own[trait] - true[trait] for trait in TRAITS})


def scaled_errors(
    values: NDArray[np.floating], target: NDArray[np.floating], season_error: ArrayLike
) -> NDArray[np.float64]:
    """Mean absolute error of forecasts [M, H] over seasonal errors, [M], of the steps where it is known.

    target, season_error : broadcast to the forecasts; NaN where no step's error is known
    """
    with np.errstate(all="ignore"):
        errors = np.abs(values - target) / season_error
        known = np.isfinite(errors)
        return np.asarray(np.where(known, errors, 0).sum(axis=1) / known.sum(axis=1), dtype=np.float64)


EXCESS = {
    "parroting": "excess_parroting",
    "seasonality": "seasonality_bias",
    "mean_reversion": "excess_mean_reversion",
}
