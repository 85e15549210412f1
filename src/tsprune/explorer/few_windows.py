"""Losses of an ablation on a few windows of every configuration, batch by batch.

1. The clean pass of each batch is recorded once; an ablation reuses everything upstream of it.
2. Sums per window give the change of each metric with its interval (`tsprune.evaluation.changes`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Mapping, Sequence

import numpy as np
import torch

from tsprune.data.stratified import stratified
from tsprune.data.suite import Configuration, Suite
from tsprune.errors import TspruneError
from tsprune.evaluation import (
    METRICS,
    Batch,
    Metric,
    WindowStatistics,
    aggregate,
    centred_ranks,
    prepare,
    rank_distance,
    shared_batches,
    truth_of,
)
from tsprune.evaluation.changes import Scored, change
from tsprune.evaluation.sampling import sampled
from tsprune.explain.forecast_traits import parroting
from tsprune.hooks.ablation import Ablation, applied
from tsprune.hooks.capture import Reference
from tsprune.models.forecaster import Forecast, Forecaster
from tsprune.replay import Replay
from tsprune.run_options import RunOptions
from tsprune.statistics import Estimate
from tsprune.statistics.estimate import Array

FEW = 30
TOKEN_WINDOWS, TOKEN_STEPS = 15, 12  # of models that decode step by step


@dataclasses.dataclass(frozen=True)
class MetricLoss:
    """A metric with and without what is off.

    before, after : geometric means over configurations of the ratio to Seasonal Naive
    change : relative change, with its interval over configurations
    """

    before: float
    after: float
    change: Estimate


@dataclasses.dataclass(frozen=True)
class Losses:
    """The effect of an ablation on a few windows.

    metrics : by name
    spearman : mean Spearman distance of the median forecasts with and without
    parroting : mean parroting of the median forecasts, with and without
    windows, configurations : numbers of them
    """

    metrics: Mapping[str, MetricLoss]
    spearman: float
    parroting: tuple[float, float]
    windows: int
    configurations: int


@dataclasses.dataclass(frozen=True)
class _Scores:
    """Scores of all windows of a batch. spearman, parroting : [B]"""

    statistics: WindowStatistics
    spearman: Array
    parroting: Array


class FewWindows:
    """A few windows of a suite, forecast again under one ablation after the other.

    Models that decode step by step get fewer windows, and their horizons are cut.
    """

    def __init__(self, model: Forecaster, suite: Suite, options: RunOptions) -> None:
        suite.require_windows()
        usable = sampled(suite, model, len(suite))
        if not len(usable):
            raise TspruneError(f"no window of {suite.name} can be forecast; none has an observed history")
        few = stratified(usable, TOKEN_WINDOWS if model.anatomy.tokens else FEW, seed=options.seed)
        if model.anatomy.tokens:
            few = dataclasses.replace(few, configurations=tuple(map(_shortened, few.configurations)))
        self.suite = few
        self._model, self._replay = model, Replay(model, options.memory)
        self._batches = shared_batches(
            few.configurations,
            context_length=model.context_length,
            batch_size=options.batch_size,
            prefix_steps=model.prefix_steps,
        )
        self._clean: list[_Scores] = []
        self._clean_medians: list[Sequence[Array]] = []
        self._seed = options.seed

    def losses(self, ablation: Ablation, reference: Reference | None) -> Generator[None, None, Losses]:
        """Yields after each batch, and returns the losses.

        Raises NotFiniteError if a forecast is not finite.
        """
        for place in range(len(self._clean), len(self._batches)):
            self._record(place)
            yield
        after = []
        for place in range(len(self._batches)):
            after.append(self._ablated(place, ablation, reference))
            yield
        return self._summary(after)

    def _record(self, place: int) -> None:
        batch = self._batches[place]
        with torch.no_grad(), self._model.quick(), self._replay.record(place):
            forecast = self._model.forecast(batch.contexts, batch.horizon)
        self._clean_medians.append(_medians(batch, forecast))
        self._clean.append(self._scores(place, forecast))

    def _ablated(self, place: int, ablation: Ablation, reference: Reference | None) -> _Scores:
        if not ablation.components:
            return self._clean[place]
        batch, model = self._batches[place], self._model
        with torch.no_grad(), model.quick(), applied(model, ablation, reference=reference):
            forecast = self._replay.computed(
                place, ablation.components, lambda: model.forecast(batch.contexts, batch.horizon)
            )
        return self._scores(place, forecast)

    def _scores(self, place: int, forecast: Forecast) -> _Scores:
        batch = self._batches[place]
        medians, before = _medians(batch, forecast), self._clean_medians[place]
        pairs = zip(medians, before, strict=True)
        far = [float(rank_distance(centred_ranks(one), centred_ranks(other))[0]) for one, other in pairs]
        copied = [parroting(own, view) for own, view in zip(medians, batch.views, strict=True)]
        statistics = truth_of(self.suite.configurations, batch).statistics(forecast)
        return _Scores(statistics, np.array(far), np.array(copied))

    def _summary(self, after: Sequence[_Scores]) -> Losses:
        clean = self._clean
        counts = {number for batch in self._batches for number in batch.members}
        both = [np.concatenate([one.parroting for one in scores]) for scores in (clean, after)]
        known = np.isfinite(both[0]) & np.isfinite(both[1])
        copied = [float(one[known].mean()) if known.any() else float("nan") for one in both]
        scored = [self._scored(number, after) for number in sorted(counts)]
        return Losses(
            metrics={metric.name: self._loss(metric, scored) for metric in METRICS.values()},
            spearman=float(np.concatenate([one.spearman for one in after]).mean()),
            parroting=(copied[0], copied[1]),
            windows=sum(map(len, self._batches)),
            configurations=len(counts),
        )

    def _scored(self, number: int, after: Sequence[_Scores]) -> Scored:
        """The windows of one configuration, in the order of the batches."""
        c = self.suite.configurations[number]
        places = [batch.members.get(number, np.zeros(0, np.int64)) for batch in self._batches]
        before, changed = (
            WindowStatistics.concatenate(
                [one.statistics.select(at) for one, at in zip(scores, places, strict=True)]
            )
            for scores in (self._clean, after)
        )
        rows = np.concatenate([batch.rows[at] for batch, at in zip(self._batches, places, strict=True)])
        return Scored(c.name, before, [changed], c.series[rows])

    def _loss(self, metric: Metric, scored: Sequence[Scored]) -> MetricLoss:
        naive = {c.name: metric.of(prepare(c).baseline) for c in self.suite.configurations}
        ratios = []
        for one in scored:
            assert one.after[0] is not None
            ratios.append([metric.of(x) / (naive[one.name] or np.nan) for x in (one.before, one.after[0])])
        known = np.array(ratios)[np.isfinite(ratios).all(axis=1)]
        before, after = (float(x) for x in aggregate(known)) if len(known) else (float("nan"),) * 2
        return MetricLoss(before, after, change(scored, metric.name, seed=self._seed))


def _medians(batch: Batch, forecast: Forecast) -> list[Array]:
    """The median of each window over its own horizon."""
    pairs = zip(forecast.median, batch.horizons, strict=True)
    return [np.asarray(one[:steps], dtype=np.float64) for one, steps in pairs]


def _shortened(configuration: Configuration) -> Configuration:
    steps = min(configuration.horizon, TOKEN_STEPS)
    return dataclasses.replace(configuration, horizon=steps, targets=configuration.targets[:, :steps])
