"""A few windows of every configuration, evenly spread, for measures that need no full evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tsprune.data.suite import Configuration, Suite
from tsprune.evaluation.batching import SINGLE, ReadTogether, shared_batches, unforecastable
from tsprune.models.forecaster import Forecaster
from tsprune.statistics import Sample, unit_means

_Result = TypeVar("_Result")
PER_CONFIGURATION = 16
SAMPLED_BATCH = 16


def sampled(suite: Suite, model: Forecaster, per_configuration: int = PER_CONFIGURATION) -> Suite:
    """The suite with at most `per_configuration` windows of each configuration that can be forecast.

    Of a model that reads several variates together, those of one window count as one, and stay together.
    """
    kept = []
    for configuration in suite.configurations:
        usable = np.ones(len(configuration), dtype=np.bool_)
        usable[[row for row, _ in unforecastable(configuration, model.context_length)]] = False
        groups = np.arange(len(configuration)) if configuration.groups is None else configuration.groups
        if not model.multivariate:
            groups = np.arange(len(configuration))
        whole = np.unique(groups[usable])
        if len(whole) > per_configuration:
            whole = whole[np.linspace(0, len(whole) - 1, per_configuration).round().astype(int)]
        if len(whole):
            kept.append(configuration.select(usable & np.isin(groups, whole)))
    return dataclasses.replace(suite, configurations=tuple(kept))


@dataclasses.dataclass(frozen=True)
class SampledWindows:
    """B windows of one configuration that are run together, longest history first.

    first : number of the first of them among all windows of the suite, in order of batches
    contexts : histories, cut to the context length; each of V windows if it is multivariate, [V, T]
    targets : [B, H], the values that followed
    series : [B], numbers of the series, which differ between configurations
    """

    configuration: Configuration
    first: int
    contexts: list[ArrayLike]
    targets: NDArray[np.float32]
    series: NDArray[np.int64]

    def select(self, places: Sequence[int]) -> SampledWindows:
        """The contexts at some places, which follow each other."""
        contexts = [self.contexts[place] for place in places]
        rows = np.arange(len(self.series)).reshape(len(self.contexts), -1)[list(places)].ravel()
        return SampledWindows(
            self.configuration, self.first + int(rows[0]), contexts, self.targets[rows], self.series[rows]
        )


class Owners:
    """Series and configuration of the windows of batches, in order of the batches."""

    def __init__(self) -> None:
        self._series: list[int] = []
        self._configurations: list[str] = []

    def add(self, batch: SampledWindows) -> None:
        """Adds the windows of one more batch."""
        self._series += batch.series.tolist()
        self._configurations += [batch.configuration.name] * len(batch.series)

    @property
    def units(self) -> tuple[str, ...]:
        """The unit of each window: its configuration; its series, if there is a single configuration."""
        several = len(set(self._configurations)) > 1
        return tuple(self._configurations if several else map(str, self._series))

    def sample(self, values: ArrayLike) -> Sample:
        """Values of all windows, [W] or [W, M], by unit."""
        return Sample.of(*unit_means(values, self._series, self._configurations))


def over_batches(
    work: Callable[[SampledWindows], _Result],
    suite: Suite,
    model: Forecaster,
    batch_size: int,
    *,
    reading: ReadTogether = SINGLE,
) -> Iterator[tuple[SampledWindows, _Result]]:
    """Calls `work` on the windows of a suite, batch by batch; a batch that exceeds the memory is halved.

    reading : whether the variates of a window become one context, and whether it has its past covariates
    `work` must leave nothing behind when it fails.
    """
    from tsprune.memory import in_parts  # imports torch

    most = batch_size
    for batch in batched(suite, model, batch_size, reading=reading):
        places = range(len(batch.contexts))
        attempt = partial(_on_part, work, batch)
        for part, result in in_parts(attempt, places, most):
            if part.stop < len(places):  # later batches are halved from the start
                most = part.stop - part.start
            yield batch.select(places[part]), result


def _on_part(
    work: Callable[[SampledWindows], _Result], batch: SampledWindows, places: Sequence[int]
) -> _Result:
    return work(batch.select(places))


def batched(
    suite: Suite, model: Forecaster, batch_size: int = SAMPLED_BATCH, *, reading: ReadTogether = SINGLE
) -> Iterator[SampledWindows]:
    """The windows of a suite, batch by batch; arguments as in `over_batches`."""
    done, owners = 0, 0
    for c in suite.configurations:
        for part in shared_batches(
            [c], context_length=model.context_length, batch_size=batch_size, reading=reading
        ):
            series = c.series[part.rows] + owners
            yield SampledWindows(c, done, part.contexts, c.targets[part.rows], series)
            done += len(part.rows)
        owners += int(c.series.max(initial=-1)) + 1
