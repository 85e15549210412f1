"""A sweep's changes as samples, from which intervals and tests follow."""

from __future__ import annotations

from collections.abc import Sequence

from tsprune.data.suite import Suite
from tsprune.evaluation import WindowStatistics
from tsprune.evaluation.changes import Scored, changes
from tsprune.hooks.ablation import Ablation
from tsprune.statistics.sample import Sample, joined_columns
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

    An ablation that failed on any configuration is NaN. One that was measured on some windows only is
    compared with the unablated scores of these.
    """
    if not any(one in result.partial for one in ablations):
        return _on_the_same(result, suite, ablations, metric, masks)
    groups: dict[bytes, list[int]] = {}
    for place, one in enumerate(ablations):
        known = b"".join(result.windows(one, name).tobytes() for name in result.rows)
        groups.setdefault(known, []).append(place)
    parts = {
        tuple(places): _on_the_same(result, suite, [ablations[place] for place in places], metric, masks)
        for places in groups.values()
    }
    return joined_columns(parts)


def _on_the_same(
    result: SweepResult, suite: Suite, ablations: Sequence[Ablation], metric: str, masks: Masks | None
) -> Sample:
    """The changes of ablations that were measured on the same windows."""
    failed = {ablation for ablation, _ in result.failed}
    scored = []
    for configuration in suite.configurations:
        name = configuration.name
        if name not in result.rows:
            continue

        def of(ablation: Ablation, name: str = name) -> WindowStatistics | None:
            return None if ablation in failed else result.scores[ablation][name].statistics

        before = result.scores[CLEAN][name].statistics
        chosen = result.windows(ablations[0] if ablations else CLEAN, name, masks)
        after = [of(ablation) for ablation in ablations]
        scored.append(Scored(name, before, after, configuration.series[result.rows[name]], chosen))
    return changes(scored, metric)
