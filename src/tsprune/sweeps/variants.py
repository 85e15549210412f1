"""Forecasts of one batch under ablations: what they share is computed once.

1. The clean pass of the batch is recorded, and every ablation replays what lies upstream of it.
2. Ablations that follow each other and whose lowest component is in the same sublayer are forecast in one
   batch, the windows once per ablation, where that is quicker (`Replay.at_once`).
3. Batches of a new shape or horizon are not trusted: the first ablation is forecast alone, in a batch that
   holds it in every place, and in its own place among the others. If any of these forecasts is another, to
   the last bit, no batch of that shape is used. (Kernels take blocks of rows, and what is left of them: the
   ends may come out the same, and what is between them not; and upstream might mix the rows of a batch.) Of
   few windows the numbers may agree by chance, so batches of fewer than `FEWEST` are not shared at all.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from tsprune.evaluation import Batch
from tsprune.hooks.ablation import Ablation, applied, side_by_side
from tsprune.hooks.capture import Reference
from tsprune.models.forecaster import Forecast, Forecaster, with_gaps
from tsprune.replay import Place, Replay

FEWEST = 8  # windows of a batch that ablations share
_KEY = "clean pass"  # one batch is recorded at a time


class Variants:
    """Forecasts the batches that it is given, one after the other, each under some ablations.

    memory : bytes that the records of a clean pass may hold
    """

    def __init__(self, model: Forecaster, reference: Reference | None, memory: int) -> None:
        self._model = model
        self._reference = reference
        self._replay = Replay(model, memory)
        self._trusted: dict[Hashable, Place] = {}  # shape -> the lowest sublayer it was tried from
        self._refused: set[Hashable] = set()  # shapes, and (place, windows) where it failed
        self._made: dict[Ablation, Forecast] = {}
        self._shares: dict[Ablation, float] = {}

    def clean(self, batch: Batch) -> Forecast:
        """The unablated forecast, whose pass is recorded for the ablated ones."""
        with self._model.alone(), self._replay.record(_KEY):
            return with_gaps(self._model, batch.contexts, batch.horizon)

    def look_ahead(self, batch: Batch, ablations: Sequence[Ablation]) -> dict[Ablation, Forecast]:
        """Forecasts the first of `ablations` (the next `MOST`) together with those that it can be.

        Returns the forecasts that were made now, which `forecast` will return. Whatever goes wrong is left
        for each to run into when its turn comes, alone.
        """
        if not ablations or ablations[0] in self._made or len(batch) < FEWEST:
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
        except Exception:  # upstream may not take batches like these, or memory may be short
            self._refused.add((place, len(batch)))
            self._made.clear()
        self._shares = dict.fromkeys(group, (time.perf_counter() - start) / len(group))
        return dict(self._made)

    def forecast(self, batch: Batch, ablation: Ablation) -> Forecast:
        """The forecast under `ablation`, the same to the last bit as without any sharing."""
        return self._made.pop(ablation) if ablation in self._made else self._alone(batch, ablation)

    def share(self, ablation: Ablation) -> float:
        """Seconds that forecasting several together took for this one."""
        return self._shares.pop(ablation, 0.0)

    def forget(self) -> None:
        """Drops everything that was made for the last batch."""
        self._replay.forget(_KEY)
        self._made.clear()
        self._shares.clear()

    def _alike(self, place: Place, ablations: Iterable[Ablation]) -> list[Ablation]:
        """The first of `ablations`, up to one whose lowest sublayer is another."""
        alike: list[Ablation] = []
        for ablation in ablations:
            if ablation in alike or self._replay.lowest(ablation.components) != place:
                break
            alike.append(ablation)
        return alike

    def _alone(self, batch: Batch, ablation: Ablation) -> Forecast:
        with (
            self._model.alone(),
            applied(self._model, ablation, reference=self._reference),
            self._replay.reuse(_KEY, ablation.components),
        ):
            return with_gaps(self._model, batch.contexts, batch.horizon)

    def _together(self, batch: Batch, group: Sequence[Ablation]) -> list[Forecast]:
        with (
            self._model.alone(),
            side_by_side(self._model, group, reference=self._reference),
            self._replay.reuse(_KEY, group[0].components, len(group)),
        ):
            joint = with_gaps(self._model, [*batch.contexts] * len(group), batch.horizon)
        return [_piece(joint, place, len(batch)) for place in range(len(group))]

    def _found(self, batch: Batch, place: Place, group: list[Ablation]) -> dict[Ablation, Forecast]:
        """Forecasts by ablation; only of the one that was tried alone, if the others cannot be used."""
        steps = max(batch.horizon, self._model.prefix_steps)  # that the readout computes
        shape = len(group), len(batch), steps, self._replay.shape(_KEY)
        if shape in self._refused:
            self._refused.add((place, len(batch)))
            return {}
        if shape in self._trusted and self._trusted[shape] <= place:
            return dict(zip(group, self._together(batch, group), strict=True))
        first = group[0]
        alone = self._alone(batch, first)
        everywhere = self._together(batch, [first] * len(group))
        found = dict(zip(group, self._together(batch, group), strict=True))
        if not all(_equal(one, alone) for one in (*everywhere, found[first])):
            self._refused |= {shape, (place, len(batch))}
            return {first: alone}
        self._trusted[shape] = place
        return found


def _piece(joint: Forecast, place: int, count: int) -> Forecast:
    """What belongs to the n-th ablation, of `count` windows each."""
    rows = slice(place * count, (place + 1) * count)
    samples = None if joint.samples is None else joint.samples[rows]
    return Forecast(joint.quantiles[rows], joint.levels, samples)


def _equal(one: Forecast, other: Forecast) -> bool:
    """Whether both are the same to the last bit."""
    if not np.array_equal(one.quantiles, other.quantiles, equal_nan=True):
        return False
    if one.samples is None or other.samples is None:
        return one.samples is other.samples
    return np.array_equal(one.samples, other.samples, equal_nan=True)
