"""Comparison of a pruned model with the original on the same windows, with intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Unpack

import numpy as np

from tsprune.arguments import checked
from tsprune.cost.latency import compare_latency, machine
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.evaluation import METRICS, WindowStatistics, aggregate, forecast_statistics, prepare
from tsprune.evaluation.changes import Scored, changes
from tsprune.models.forecaster import Evidence, Forecaster, Measured
from tsprune.run_options import Options, RunOptions
from tsprune.statistics import Estimate

LATENCY_BATCHES, LATENCY_ROUNDS = (1, 64), 20
CONTEXT, HORIZON = 512, 24  # steps, of the forecasts that are timed


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two models on the same windows of a suite.

    before, after : metric -> geometric mean over configurations, relative to Seasonal Naive
    change : metric -> relative change with its interval
    windows : number of windows that both models could forecast
    """

    suite: str
    windows: int
    before: Mapping[str, float]
    after: Mapping[str, float]
    change: Mapping[str, Estimate]

    def evidence(self) -> Evidence:
        """Rows for a model card."""
        return {
            f"{metric} relative to Seasonal Naive ({self.suite}, {self.windows} windows)": Measured(
                self.before[metric], self.after[metric], self.change[metric].as_percent()
            )
            for metric in METRICS
        }


@checked
def compare(model: Forecaster, other: Forecaster, suite: Suite, **options: Unpack[Options]) -> Comparison:
    """Scores of `other` against `model` on the same windows; judge a plan on the report series.

    options : keywords of `tsprune.run_options.RunOptions`; `seed` is of the bootstrap

    Raises TspruneError if no window can be forecast by both.
    """
    chosen = RunOptions(**options)
    pairs: list[Scored] = []
    ratios: dict[str, list[list[float]]] = {metric: [] for metric in METRICS}
    size, configurations = chosen.batch_size, suite.configurations
    both = [forecast_statistics(each, configurations, batch_size=size) for each in (model, other)]
    for configuration, *results in zip(configurations, *both, strict=True):
        rows = np.intersect1d(results[0].rows, results[1].rows)
        if not len(rows):
            continue
        scores: list[WindowStatistics] = []
        for result in results:
            assert result.statistics is not None
            scores.append(result.statistics.select(np.isin(result.rows, rows)))
        series = configuration.series[rows]
        pairs.append(Scored(configuration.name, scores[0], scores[1:], series))
        naive = prepare(configuration).baseline.select(rows)
        for name, metric in METRICS.items():
            if (of_naive := metric.of(naive)) > 0:
                ratios[name].append([metric.of(one) / of_naive for one in scores])
    if not pairs:
        raise TspruneError(f"no window of {suite.name} could be forecast by both models")
    means = {metric: aggregate(np.reshape(ratios[metric], (-1, 2))).tolist() for metric in METRICS}
    before, after = ({metric: means[metric][side] for metric in METRICS} for side in (0, 1))
    change = {metric: changes(pairs, metric).estimate(seed=chosen.seed) for metric in METRICS}
    return Comparison(suite.name, sum(len(pair.before) for pair in pairs), before, after, change)


@checked
def latency_evidence(
    model: Forecaster,
    other: Forecaster,
    *,
    batches: Sequence[int] = LATENCY_BATCHES,
    context: int = CONTEXT,
    horizon: int = HORIZON,
    rounds: int = LATENCY_ROUNDS,
) -> Evidence:
    """Milliseconds per forecast, measured in turns on this machine, as rows for a model card."""
    table = compare_latency(model, other, batches=batches, context=context, horizon=horizon, rounds=rounds)
    found = {}
    for batch, pair in table.groupby("batch", sort=False):
        before, after = pair.itertuples()
        name = f"ms a forecast, batch {batch}, context {context}, horizon {horizon} ({machine()})"
        ratio = f"x {after.time_ratio:.3f} [{after.time_ratio_low:.3f}, {after.time_ratio_high:.3f}]"
        found[name] = Measured(float(before.ms), float(after.ms), ratio)
    return found


def measured(
    model: Forecaster, other: Forecaster, suite: Suite, *, earlier: Forecaster | None = None, options: Options
) -> Evidence:
    """The rows of a model card: scores of `other` against `model` on a suite, and milliseconds of both.

    earlier : `other` before it was recovered, whose scores are rows of their own
    options : keywords of `tsprune.run_options.RunOptions`

    Raises TspruneError as `compare` does.
    """
    found = dict(compare(model, other, suite, **options).evidence())
    if earlier is not None:
        rows = compare(model, earlier, suite, **options).evidence()
        found |= {f"before recovery: {name}": row for name, row in rows.items()}
    return found | dict(latency_evidence(model, other))
