"""Intervals of a sweep's changes: every ablation under the same bootstrap draws."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tsprune.ablation import Ablation
from tsprune.data.suite import Suite
from tsprune.evaluation import WindowStatistics
from tsprune.evaluation.intervals import DRAWS, Metric, Resampled, Scored, resample
from tsprune.sweep.result import CLEAN, Masks, SweepResult


def resampled_changes(
    result: SweepResult,
    suite: Suite,
    ablations: Sequence[Ablation],
    metric: Metric,
    *,
    masks: Masks | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Resampled:
    """The changes of `ablations`, in that order, with draws from which intervals follow.

    suite : the one that was swept; it knows which windows are of one series
    masks : as in `SweepResult.change`, whose numbers the values are

    An ablation that failed on any configuration is NaN, as there.
    """
    failed = {ablation for ablation, _ in result.failed}
    scored = []
    for configuration in suite.configurations:
        name = configuration.name
        if name not in result.rows:
            continue
        rows = result.rows[name]

        def of(ablation: Ablation, name: str = name) -> WindowStatistics | None:
            return None if ablation in failed else result.scores[ablation][name].statistics

        before = result.scores[CLEAN][name].statistics
        chosen = np.ones(len(rows), dtype=np.bool_) if masks is None else masks[name][rows]
        scored.append(Scored(before, [of(one) for one in ablations], configuration.series[rows], chosen))
    return resample(scored, metric, draws=draws, seed=seed)
