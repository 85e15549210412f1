"""Forecasts of one batch under several ablations; their common part is computed once.

1. The clean pass of the batch is recorded, and every ablation replays what lies upstream of it.
2. Ablations that follow each other and whose lowest component is in the same sublayer are forecast in one
   batch, the windows once per ablation, where that is quicker (`Replay.at_once`).
3. Batches of a new shape or horizon are not trusted: every ablation of the first such batch is forecast
   alone, too, and random streams in place of what the first one ablates (`replay.random_like`) alone and
   in every place. If any of these forecasts is another, to the last bit, no batch of that shape is used.
   (Kernels take blocks of rows, and what is left of them: the ends may come out the same, and what is between
   them not; and upstream might mix the rows of a batch.) Of few windows the numbers may agree by chance, so
   batches of fewer than `FEWEST` are not shared at all.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import numpy as np
from torch import Tensor

from tsprune.anatomy import Component
from tsprune.evaluation import Batch
from tsprune.hooks.ablation import Ablation, applied, side_by_side
from tsprune.hooks.capture import Point, Reference, hook_at, point_of
from tsprune.models.forecaster import Forecast, Forecaster, with_gaps
from tsprune.replay import Place, Replay, random_like

FEWEST = 8  # windows of a batch that ablations share
_KEY = "clean pass"  # one batch is recorded at a time


class Variants:
    """Forecasts batches one after the other, each under some ablations.

    memory : bytes that the records of a clean pass may hold
    """

    def __init__(self, model: Forecaster, reference: Reference | None, memory: int) -> None:
        self._model = model
        self._reference = reference
        self._replay = Replay(model, memory)
        self._trusted: dict[Hashable, Place] = {}  # shape -> the lowest sublayer of its trial
        self._refused: set[Hashable] = set()  # shapes, and (place, windows) of failed trials
        self._made: dict[Ablation, Forecast] = {}
        self._shares: dict[Ablation, float] = {}
        self._first: dict[Ablation, Place | None] = {}  # the lowest place of it and all that follow

    def expect(self, ablations: Sequence[Ablation]) -> None:
        """Takes the order of the ablations that follow; records that none of the rest needs are dropped."""
        lowest: Place | None = None
        for one in reversed(ablations):
            place = self._replay.lowest(one.components)
            lowest = min((x for x in (place, lowest) if x is not None), default=None)
            self._first[one] = lowest

    def clean(self, batch: Batch) -> Forecast:
        """The unablated forecast; its pass is recorded for the ablated ones."""
        with self._model.alone(), self._replay.record(_KEY):
            return with_gaps(self._model, batch.contexts, batch.horizon)

    def look_ahead(self, batch: Batch, ablations: Sequence[Ablation]) -> dict[Ablation, Forecast]:
        """Forecasts the first of `ablations` (the next `MOST`) jointly with all that can share its batch.

        Returns the forecasts that were made now, which `forecast` will return. Whatever goes wrong is left
        for each to run into when its turn comes, alone.
        """
        if not ablations or ablations[0] in self._made:
            return {}
        if (needed := self._first.get(ablations[0])) is not None:
            self._replay.release(_KEY, needed)
        if len(batch) < FEWEST:
            return {}
        start = time.perf_counter()
        place = self._replay.lowest(ablations[0].components)
        if place is None or (place, len(batch)) in self._refused:
            return {}
        group = self._alike(place, ablations)[: self._replay.at_once(_KEY, place)]
        if len(group) < 2:
            return {}
        try:
            self._made = self._found(batch, place, group)
        except Exception:  # upstream may refuse larger batches, or memory may run out
            self._refused.add((place, len(batch)))
            self._made.clear()
        self._shares = dict.fromkeys(group, (time.perf_counter() - start) / len(group))
        return dict(self._made)

    def forecast(self, batch: Batch, ablation: Ablation) -> Forecast:
        """The forecast under `ablation`, bit-identical to one without sharing."""
        return self._made.pop(ablation) if ablation in self._made else self._alone(batch, ablation)

    def share(self, ablation: Ablation) -> float:
        """Seconds of a joint forecast that belong to this ablation."""
        return self._shares.pop(ablation, 0.0)

    def forget(self) -> None:
        """Drops all records of the last batch."""
        self._replay.forget(_KEY)
        for made in (self._made, self._shares, self._first):
            made.clear()

    def _alike(self, place: Place, ablations: Iterable[Ablation]) -> list[Ablation]:
        """The leading ones of `ablations` with the same lowest sublayer."""
        alike: list[Ablation] = []
        for ablation in ablations:
            if ablation in alike or self._replay.lowest(ablation.components) != place:
                break
            alike.append(ablation)
        return alike

    def _alone(self, batch: Batch, ablation: Ablation) -> Forecast:
        with self._model.alone(), applied(self._model, ablation, reference=self._reference):
            return self._replay.computed(
                _KEY, ablation.components, lambda: with_gaps(self._model, batch.contexts, batch.horizon)
            )

    def _together(self, batch: Batch, group: Sequence[Ablation]) -> list[Forecast]:
        with side_by_side(self._model, group, reference=self._reference):
            return self._repeated(batch, group[0].components, len(group))

    def _random(self, batch: Batch, components: Sequence[Component], times: int) -> list[Forecast]:
        """Forecasts with random streams as outputs of `components`, equal in every repetition."""
        with _random_streams(self._model, components, times):
            return self._repeated(batch, components, times)

    def _repeated(self, batch: Batch, components: Sequence[Component], times: int) -> list[Forecast]:
        """The forecasts of every repetition of the batch, replayed up to `components`."""
        contexts = [*batch.contexts] * times
        with self._model.alone():
            joint = self._replay.computed(
                _KEY, components, lambda: with_gaps(self._model, contexts, batch.horizon), times
            )
        count = len(batch)
        return [joint.select(slice(place * count, (place + 1) * count)) for place in range(times)]

    def _found(self, batch: Batch, place: Place, group: list[Ablation]) -> dict[Ablation, Forecast]:
        """Forecasts by ablation, computed jointly if an earlier trial, or one made here, changed no bit."""
        steps = max(batch.horizon, self._model.prefix_steps)  # steps that the readout computes
        shape = len(group), len(batch), steps, self._replay.shape(_KEY)
        if shape in self._refused:
            self._refused.add((place, len(batch)))
            return {}
        if shape in self._trusted and self._trusted[shape] <= place:
            return dict(zip(group, self._together(batch, group), strict=True))
        alone = {ablation: self._alone(batch, ablation) for ablation in group}
        if self._agree(batch, alone):
            self._trusted[shape] = place
        else:
            self._refused |= {shape, (place, len(batch))}
        return alone

    def _agree(self, batch: Batch, alone: Mapping[Ablation, Forecast]) -> bool:
        """Whether a joint batch gives every ablation the forecast that it has `alone`."""
        group = [*alone]
        if not all(map(_equal, self._together(batch, group), alone.values())):
            return False
        components = group[0].components
        (one,) = self._random(batch, components, 1)
        return all(_equal(each, one) for each in self._random(batch, components, len(group)))


@contextmanager
def _random_streams(
    model: Forecaster, components: Iterable[Component], times: int = 1, *, seed: int = 0
) -> Iterator[None]:
    """Random values pass wherever `components` are ablated, while the context lasts.

    times : how often the batch holds its windows, one repetition after the other; all get the same values
    """
    points = {point_of(model.anatomy, component) for component in model.anatomy.expand(components)}

    def changed(x: Tensor, point: Point) -> Tensor:
        x = point.windows_first(x)
        one = random_like(x[: x.shape[0] // times], seed)
        return point.windows_first(one.repeat(times, *[1] * (x.ndim - 1)))

    with model.alone(keeps=True), ExitStack() as hooks:
        for point in points:
            hooks.callback(hook_at(model.module, point, partial(changed, point=point)).remove)
        yield


def _equal(one: Forecast, other: Forecast) -> bool:
    """Whether both are bit-identical."""
    if not np.array_equal(one.quantiles, other.quantiles, equal_nan=True):
        return False
    if one.samples is None or other.samples is None:
        return one.samples is other.samples
    return np.array_equal(one.samples, other.samples, equal_nan=True)
