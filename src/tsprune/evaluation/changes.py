"""Relative changes of a metric between two forecasts of the same windows, as samples over configurations.

1. Sums per window are added up over a configuration: metrics are ratios of sums.
2. The value of a configuration is the log ratio of its metric after and before. The mean over
   configurations is the log of the ratio of geometric means, as in the tables.
3. In a single configuration the series are the units. Each has the jackknife's pseudo-value of the log
   ratio; the mean of these is the log ratio of all series (`tsprune.statistics.pseudo_values`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tsprune.evaluation.metrics import METRICS, Metric, WindowStatistics
from tsprune.statistics import LEVEL, UNKNOWN, Estimate, Sample, pseudo_values
from tsprune.statistics.estimate import Array


@dataclasses.dataclass(frozen=True)
class Scored:
    """Scores of one configuration without ablation and under A ablations, on the same M windows.

    name : of the configuration
    after : A scores; None where an ablation failed (its change is NaN)
    series : int64 [M], the series of each window
    chosen : bool [M], the windows that count; None takes all
    """

    name: str
    before: WindowStatistics
    after: Sequence[WindowStatistics | None]
    series: NDArray[np.int64]
    chosen: NDArray[np.bool_] | None = None


def changes(scored: Sequence[Scored], metric: str) -> Sample:
    """Relative changes of the geometric mean over configurations under A ablations.

    Configurations whose metric before is 0 or undefined do not count. An ablation without a score on one of
    the others is NaN.

    Raises TspruneError for an unknown metric.
    """
    sums = [(one.name, *_series_sums(one, METRICS.named(metric))) for one in scored]
    usable = [(name, series, found) for name, series, found in sums if _defined(found)]
    if len(usable) == 1:
        _, series, found = usable[0]
        logs, units = pseudo_values(found, _log_ratios), [str(owner) for owner in series]
    else:
        logs = np.full((len(usable), len(scored[0].after) if scored else 0), np.nan)
        for row, (_, _, found) in enumerate(usable):
            logs[row] = _log_ratios(found.sum(axis=0))
        units = [name for name, _, _ in usable]
    logs[:, ~np.isfinite(logs).all(axis=0)] = np.nan
    return Sample.of(logs, units, logarithmic=True)


def change(scored: Sequence[Scored], metric: str, *, level: float = LEVEL, seed: int = 0) -> Estimate:
    """The change under the only ablation of `scored`, with its interval."""
    if not scored:
        return UNKNOWN
    return changes(scored, metric).estimate(level=level, seed=seed)


def _series_sums(scored: Scored, metric: Metric) -> tuple[NDArray[np.int64], Array]:
    """S series, and sums over their windows [S, 2 + 2 A]: before, numerators after, denominators after."""
    both = metric.numerator, metric.denominator
    nothing = np.full(len(scored.series), np.nan)
    columns = [part(scored.before) for part in both]
    columns += [nothing if one is None else part(one) for part in both for one in scored.after]
    chosen = slice(None) if scored.chosen is None else scored.chosen
    series, owner = np.unique(scored.series[chosen], return_inverse=True)
    sums = np.zeros((len(series), len(columns)))
    np.add.at(sums, owner, np.stack(columns, axis=1)[chosen])
    return series, sums


def _defined(sums: Array) -> bool:
    """Whether the metric before is defined and not 0."""
    total, weight = sums[:, :2].sum(axis=0)
    return bool(weight and total / weight > 0)


def _log_ratios(sums: Array) -> Array:
    """log(after / before) [..., A] of sums (or means) [..., 2 + 2 A]."""
    numerators, denominators = np.split(sums[..., 2:], 2, axis=-1)
    with np.errstate(all="ignore"):
        before = np.log(sums[..., :1]) - np.log(sums[..., 1:2])
        return np.asarray(np.log(numerators) - np.log(denominators) - before)
