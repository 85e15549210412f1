"""Traits of the forecasts of a whole suite, and their excess over the true future's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

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
from tsprune.run_options import Options, RunOptions
from tsprune.schema import Column, Schema
from tsprune.statistics.estimate import Array

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
    options : keywords of `tsprune.run_options.RunOptions`: `batch_size`

    A trait is NaN where it is undefined (arXiv 2505.11349, 2602.01605).

    Raises TspruneError for a suite without windows that can be forecast.
    """
    suite.require_windows()
    parts = []
    for batch in shared_batches(
        suite.configurations,
        context_length=model.context_length,
        batch_size=RunOptions(**options).batch_size,
    ):
        median = model.forecast(batch.contexts, batch.horizon).median
        for number, places in batch.members.items():
            c = suite.configurations[number]
            found = _of_windows(c, batch.rows[places], median[places], model.context_length)
            parts.append(found.assign(place=number))
    if not parts:
        raise TspruneError(f"no window of {suite.name} can be forecast; none has an observed history")
    frame = pd.concat(parts).sort_values(["place", "window"], ignore_index=True)
    return FORECAST_TRAITS.checked(frame.drop(columns="place"))


def _of_windows(
    c: Configuration, rows: NDArray[np.int64], median: NDArray[np.float32], cut: int
) -> pd.DataFrame:
    """Rows of `forecast_traits` for the windows `rows` of one configuration, forecast as `median` [M, H]."""
    contexts = [c.contexts[row][-cut:] for row in rows]
    periods = [dominant_period(context) for context in contexts]
    own, true = (_traits_of(values, contexts, periods) for values in (median, c.targets[rows]))
    columns: dict[str, object] = {"configuration": c.name, "window": rows, "series": c.series[rows]}
    columns["error"] = scaled_errors(median, c.targets[rows], prepare(c).season_errors[rows, None])
    excess = dict(zip(EXCESS.values(), own - true, strict=True))
    return pd.DataFrame(columns | dict(zip(TRAITS, own, strict=True)) | excess)


def _traits_of(
    values: NDArray[np.floating], contexts: Sequence[NDArray[np.float32]], periods: Sequence[float]
) -> Array:
    """`TRAITS` of `values` [M, H], each on its own context: [traits, M]."""
    one_by_one = zip(values, contexts, periods, strict=True)
    found = [traits_on(value[None], context, period)[:, 0] for value, context, period in one_by_one]
    return np.stack(found, axis=1)


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
