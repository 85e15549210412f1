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

from tsprune.evaluation.metrics import METRICS, Metric, Sums, WindowStatistics
from tsprune.statistics import LEVEL, UNKNOWN, Estimate, Sample, pseudo_values

Array = NDArray[np.float64]


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
    sums = [(one, _Sums.of(one, METRICS.named(metric))) for one in scored]
    usable = [(one, found) for one, found in sums if found.usable]
    count = len(scored[0].after) if scored else 0
    if len(usable) == 1:
        return Sample.of(*_by_series(usable[0][1]), logarithmic=True)
    logs = np.full((len(usable), count), np.nan)
    for row, (_, found) in enumerate(usable):
        logs[row] = found.log_ratio(found.totals().sum(axis=0))
    logs[:, ~np.isfinite(logs).all(axis=0)] = np.nan
    return Sample.of(logs, [one.name for one, _ in usable], logarithmic=True)


def change(scored: Sequence[Scored], metric: str, *, level: float = LEVEL, seed: int = 0) -> Estimate:
    """The change under the only ablation of `scored`, with its interval."""
    if not scored:
        return UNKNOWN
    return changes(scored, metric).estimate(level=level, seed=seed)


def _by_series(found: _Sums) -> tuple[Array, list[str]]:
    """Pseudo-values of the series of a single configuration, [S, A], and their names."""
    totals = found.totals()
    values = pseudo_values(totals, found.log_ratio)
    values[:, ~np.isfinite(values).all(axis=0)] = np.nan
    return values, [str(owner) for owner in np.unique(found.series)]


@dataclasses.dataclass(frozen=True)
class _Sums:
    """Numerators and denominators of a metric per window, [M, 2] before and [M, 2 A] after.

    series : [M]
    """

    before: Array
    after: Array
    series: NDArray[np.int64]

    @classmethod
    def of(cls, scored: Scored, metric: Metric) -> _Sums:
        chosen = np.ones(len(scored.series), np.bool_) if scored.chosen is None else scored.chosen
        nothing = np.full(len(chosen), np.nan)

        def column(one: WindowStatistics | None, sums: Sums) -> Array:
            return (nothing if one is None else np.asarray(sums(one), np.float64))[chosen]

        both = metric.numerator, metric.denominator
        before = np.stack([column(scored.before, sums) for sums in both], axis=1)
        after = [column(one, sums) for sums in both for one in scored.after]
        empty = np.empty((int(chosen.sum()), 0))
        return cls(before, np.stack(after, axis=1) if after else empty, scored.series[chosen])

    @property
    def usable(self) -> bool:
        """Whether the metric before is defined and not 0."""
        total, weight = self.before.sum(axis=0)
        return bool(weight and total / weight > 0)

    def totals(self) -> Array:
        """Sums per series, [S, 2 + 2 A]: before and after."""
        names, owner = np.unique(self.series, return_inverse=True)
        found = np.zeros((len(names), 2 + self.after.shape[1]))
        np.add.at(found, owner, np.concatenate([self.before, self.after], axis=1))
        return found

    def log_ratio(self, sums: Array) -> Array:
        """log(after / before) [..., A] of sums (or means) [..., 2 + 2 A]."""
        count = self.after.shape[1] // 2
        numerators, denominators = sums[..., 2 : 2 + count], sums[..., 2 + count :]
        with np.errstate(all="ignore"):
            before = np.log(sums[..., :1]) - np.log(sums[..., 1:2])
            return np.asarray(np.log(numerators) - np.log(denominators) - before)
