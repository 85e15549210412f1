"""A sweep's changes as samples, from which intervals and tests follow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tsprune.data.suite import Suite
from tsprune.evaluation import WindowStatistics
from tsprune.evaluation.changes import Scored, changes
from tsprune.hooks.ablation import Ablation
from tsprune.statistics import Sample
from tsprune.sweeps.sweep_result import CLEAN, Masks, SweepResult


def change_sample(
    result: SweepResult,
    suite: Suite,
    ablations: Sequence[Ablation],
    metric: str,
    *,
    masks: Masks | None = None,
) -> Sample:
    """The changes of `ablations` as a sample: one quantity each, in that order.

    suite : of the sweep; it knows the series of each window
    masks : as in `SweepResult.change`, which gives the same values

    An ablation that failed on any configuration is NaN.
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
        after = [of(ablation) for ablation in ablations]
        scored.append(Scored(name, before, after, configuration.series[rows], chosen))
    return changes(scored, metric)
