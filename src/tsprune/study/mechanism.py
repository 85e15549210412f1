"""Do sharp heads carry parroting and seasonality? Forecasts without them, against without others."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

from tsprune.ablation import Ablation
from tsprune.data.suite import Configuration, Suite
from tsprune.explain.forecast_traits import dominant_period, parroting, seasonal_share
from tsprune.models.forecaster import Forecast
from tsprune.sweep.result import CLEAN, SweepResult

TRAITS = ("parroting", "seasonality")


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean over series with its 95 % bootstrap interval; `count` series."""

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"


@dataclasses.dataclass(frozen=True)
class Mechanism:
    """Traits of the unablated forecast, and how they move without sharp and without diffuse heads.

    clean : trait -> excess over the true future (excess parroting, seasonality bias)
    sharp, diffuse : trait -> change of the trait when those heads are ablated
    difference : trait -> change without the sharp heads minus change without the diffuse ones
    """

    clean: Mapping[str, Interval]
    sharp: Mapping[str, Interval]
    diffuse: Mapping[str, Interval]
    difference: Mapping[str, Interval]


def traits(
    values: NDArray[np.floating], configuration: Configuration, rows: NDArray[np.int64], cut: int
) -> dict[str, NDArray[np.float64]]:
    """Parroting and seasonal share of forecasts (or futures) [M, H] of the windows `rows`, each [M].

    cut : the model's context length; what it cannot see it cannot parrot
    """
    contexts = [configuration.contexts[row][-cut:] for row in rows]
    pairs = list(zip(values, contexts, strict=True))
    return {
        "parroting": np.array([parroting(v, c) if np.isfinite(v).all() else np.nan for v, c in pairs]),
        "seasonality": np.array(
            [seasonal_share(v, dominant_period(c)) if np.isfinite(v).all() else np.nan for v, c in pairs]
        ),
    }


def measure(
    result: SweepResult, suite: Suite, *, sharp: Ablation, diffuse: Ablation, context_length: int, seed: int
) -> Mechanism:
    """Traits with and without two sets of heads, over all windows of a suite.

    The forecasts of `CLEAN`, `sharp` and `diffuse` must have been kept in `result`.
    """
    per_series: dict[str, dict[str, list[float]]] = {
        name: {trait: [] for trait in TRAITS} for name in ("clean", "sharp", "diffuse", "difference")
    }
    for configuration in suite.configurations:
        rows = result.rows.get(configuration.name)
        if rows is None:
            continue

        def of(
            forecast: Forecast | NDArray[np.float32],
            configuration: Configuration = configuration,
            rows: NDArray[np.int64] = rows,
        ) -> dict[str, NDArray[np.float64]]:
            values = forecast.median if isinstance(forecast, Forecast) else forecast
            return traits(values, configuration, rows, context_length)

        future = of(configuration.targets[rows])
        clean = of(result.forecasts[CLEAN, configuration.name])
        without_sharp = of(result.forecasts[sharp, configuration.name])
        without_diffuse = of(result.forecasts[diffuse, configuration.name])
        for trait in TRAITS:
            columns = {
                "clean": clean[trait] - future[trait],
                "sharp": without_sharp[trait] - clean[trait],
                "diffuse": without_diffuse[trait] - clean[trait],
                "difference": without_sharp[trait] - without_diffuse[trait],
            }
            for name, values in columns.items():
                per_series[name][trait] += _series_means(values, configuration.series[rows])
    intervals = {
        name: {trait: _interval(values, seed) for trait, values in columns.items()}
        for name, columns in per_series.items()
    }
    return Mechanism(**intervals)


def _series_means(values: NDArray[np.float64], series: NDArray[np.int64]) -> list[float]:
    """Mean per series over its windows that have the trait; windows of a series are not independent."""
    known = np.isfinite(values)
    return [float(values[known & (series == one)].mean()) for one in np.unique(series[known])]


def _interval(values: list[float], seed: int) -> Interval:
    data = np.array(values)
    if len(data) < 2 or np.ptp(data) == 0:
        mean = float(data.mean()) if len(data) else float("nan")
        return Interval(mean, mean, mean, len(data))
    limits = bootstrap((data,), np.mean, method="percentile", n_resamples=2000, rng=seed).confidence_interval
    return Interval(float(data.mean()), float(limits.low), float(limits.high), len(data))
