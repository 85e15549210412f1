"""Effects of a study's ablations with intervals: the numbers that its tables and claims quote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsprune.data.suite import Suite
from tsprune.evaluation import METRICS, prepare
from tsprune.evaluation.changes import Scored, change
from tsprune.hooks.ablation import Ablation
from tsprune.statistics import LEVEL, SEEDS, Estimates, Sample, holm
from tsprune.statistics.bootstrap import DRAWS
from tsprune.sweeps.samples import change_sample
from tsprune.sweeps.sweep_result import CLEAN, Masks, SweepResult

STATISTICS: dict[str, object] = {
    "intervals": "studentised bootstrap over configurations (over series, of a single configuration), of log "
    "ratios; Student's t below five units",
    "level": LEVEL,
    "draws": DRAWS,
    "families": "Holm; the claims about one model are one family",
    "verdicts": f"undecided unless {SEEDS} bootstrap seeds agree",
}


class Effects:
    """Changes of a metric under a sweep's ablations, on the same units: any two can be compared in pairs."""

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
        self._result, self._masks, self.seed = result, masks, seed
        self._column = {ablation: column for column, ablation in enumerate(dict.fromkeys(ablations))}
        self._samples: Mapping[str, Sample] = {
            metric: change_sample(result, suite, list(self._column), metric, masks=masks)
            for metric in METRICS
        }

    def of(self, ablations: Sequence[Ablation], metric: str) -> Sample:
        """The changes of some of the ablations, in that order."""
        return self._samples[metric].columns([self._column[ablation] for ablation in ablations])

    def estimates(self, ablations: Sequence[Ablation], metric: str) -> Estimates:
        """Their estimates."""
        return self.of(ablations, metric).estimates(seed=self.seed)

    def columns(self, ablations: Sequence[Ablation]) -> pd.DataFrame:
        """One row an ablation: mase_change, mase_low, mase_high, ... of every metric, spearman_distance."""
        changes = [self._result.change(ablation, self._masks) for ablation in ablations]
        found: dict[str, object] = {}
        for metric in METRICS:
            name, estimates = METRICS[metric].key, self.estimates(ablations, metric)
            found[f"{name}_change"] = np.array([change[metric] for change in changes], dtype=float)
            found[f"{name}_low"], found[f"{name}_high"] = estimates.low, estimates.high
        found["spearman_distance"] = np.array([change.spearman for change in changes], dtype=float)
        return pd.DataFrame(found)

    def corrected(self, ablations: Sequence[Ablation], metric: str) -> NDArray[np.float64]:
        """p-values of no change of a family of ablations, Holm's correction applied."""
        return holm(self.estimates(ablations, metric).p)


def ratio_interval(result: SweepResult, suite: Suite, metric: str, seed: int) -> tuple[float, float]:
    """(low, high) of the unablated model's metric relative to Seasonal Naive's, the same windows of both."""
    scored = [
        Scored(
            c.name,
            prepare(c).baseline.select(result.rows[c.name]),
            [result.scores[CLEAN][c.name].statistics],
            c.series[result.rows[c.name]],
        )
        for c in suite.configurations
        if c.name in result.rows
    ]
    found = change(scored, metric, seed=seed)
    return 1 + found.low, 1 + found.high
