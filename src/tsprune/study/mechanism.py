"""Do sharp heads carry parroting and seasonality? Forecasts without them, against without others."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tsprune.ablation import Ablation
from tsprune.data.suite import Configuration, Suite
from tsprune.explain.intervals import Interval, mean_interval, series_means
from tsprune.explain.traits import traits
from tsprune.models.forecaster import Forecast
from tsprune.sweep.result import CLEAN, SweepResult

TRAITS = ("parroting", "seasonality")


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
                per_series[name][trait] += series_means(values, configuration.series[rows]).tolist()
    intervals = {
        name: {trait: mean_interval(values, seed) for trait, values in columns.items()}
        for name, columns in per_series.items()
    }
    return Mechanism(**intervals)
