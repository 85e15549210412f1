"""Effects of a study's ablations with intervals: the numbers that its tables and claims quote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsprune.ablation import Ablation
from tsprune.data.suite import Suite
from tsprune.evaluation import Prepared
from tsprune.evaluation.intervals import DRAWS, LEVEL, Metric, Paired, Resampled, change_interval, holm
from tsprune.sweep.intervals import resampled_changes
from tsprune.sweep.result import CLEAN, Masks, SweepResult

METRICS: tuple[Metric, ...] = ("MASE", "CRPS")
STATISTICS: dict[str, object] = {
    "intervals": "paired bootstrap over series within configurations, then over configurations; "
    "expanded percentiles",
    "level": LEVEL,
    "draws": DRAWS,
    "families": "Holm",
}


class Effects:
    """What a sweep's ablations change, and what they change under each of the bootstrap draws.

    All of them share the draws, so that any two can be compared in pairs.
    """

    def __init__(
        self,
        result: SweepResult,
        suite: Suite,
        ablations: Sequence[Ablation],
        *,
        masks: Masks | None = None,
        seed: int = 0,
    ) -> None:
        """`masks` : the windows that count, as in `SweepResult.change`; `seed` : of the bootstrap."""
        self._result, self._masks = result, masks
        self._column = {ablation: column for column, ablation in enumerate(dict.fromkeys(ablations))}
        self._resampled: Mapping[Metric, Resampled] = {
            metric: resampled_changes(result, suite, list(self._column), metric, masks=masks, seed=seed)
            for metric in METRICS
        }

    def of(self, ablations: Sequence[Ablation], metric: Metric) -> Resampled:
        """The changes of some of the ablations, in that order."""
        return self._resampled[metric].columns([self._column[ablation] for ablation in ablations])

    def columns(self, ablations: Sequence[Ablation]) -> pd.DataFrame:
        """One row an ablation: mase_change, mase_low, mase_high, the same of crps, spearman_distance."""
        changes = [self._result.change(ablation, self._masks) for ablation in ablations]
        found: dict[str, object] = {}
        for metric in METRICS:
            name = metric.lower()
            found[f"{name}_change"] = np.array([getattr(change, name) for change in changes], dtype=float)
            found[f"{name}_low"], found[f"{name}_high"] = self.of(ablations, metric).limits()
        found["spearman_distance"] = np.array([change.spearman for change in changes], dtype=float)
        return pd.DataFrame(found)

    def corrected(self, ablations: Sequence[Ablation], metric: Metric) -> NDArray[np.float64]:
        """p-values of no change of a family of ablations, Holm's correction applied."""
        return holm(self.of(ablations, metric).p_values())


def ratio_interval(
    result: SweepResult, prepared: Sequence[Prepared], metric: Metric, seed: int
) -> tuple[float, float]:
    """(low, high) of the unablated model's metric relative to Seasonal Naive's, the same windows of both."""
    pairs = [
        Paired(
            one.baseline.select(result.rows[one.configuration.name]),
            result.scores[CLEAN][one.configuration.name].statistics,
            one.configuration.series[result.rows[one.configuration.name]],
        )
        for one in prepared
        if one.configuration.name in result.rows
    ]
    change = change_interval(pairs, metric, seed=seed)
    return 1 + change.low, 1 + change.high
