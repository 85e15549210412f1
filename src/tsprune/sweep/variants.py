"""Forecasts of one batch under ablations: what they share is computed once.

1. The clean pass of the batch is recorded, and every ablation replays what lies upstream of it.
2. Ablations that follow each other and whose lowest component is in the same sublayer are run ahead
   together (`Replay.ahead`), where that is quicker.
3. Batches of a new shape are not trusted: the first and the last ablation of the first ones are forecast
   alone as well, and if any stack returns anything else then, to the last bit, no batch of that shape
   is used.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable, Sequence
from contextlib import AbstractContextManager

from tsprune.ablation import Ablation, applied, side_by_side
from tsprune.capture import Reference
from tsprune.evaluation import Batch
from tsprune.models.forecaster import Forecast, Forecaster
from tsprune.replay import Ahead, Place, Replay

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
        self._refused: set[Hashable] = set()  # shapes, and (place, windows) where running ahead failed
        self._ahead: dict[Ablation, Ahead] = {}
        self._alone: dict[Ablation, Forecast] = {}
        self._shares: dict[Ablation, float] = {}

    def clean(self, batch: Batch) -> Forecast:
        """The unablated forecast, whose pass is recorded for the ablated ones."""
        with self._replay.record(_KEY):
            return self._model.forecast(batch.contexts, batch.horizon)

    def look_ahead(self, batch: Batch, ablations: Sequence[Ablation]) -> None:
        """Runs the first of `ablations` (the next `MOST`) ahead, with those that it can be run with.

        Whatever goes wrong is left for each to run into when its turn comes, alone.
        """
        if not ablations or ablations[0] in self._ahead or ablations[0] in self._alone:
            return
        start = time.perf_counter()
        place = self._replay.lowest(ablations[0].components)
        group = self._alike(place, ablations)
        if place is None or len(group) < 2 or (place, len(batch)) in self._refused:
            return
        try:
            self._ahead = self._found(batch, place, group)
        except Exception:  # upstream may not take batches like these, or memory may be short
            self._refused.add((place, len(batch)))
            self._ahead.clear()
            self._alone.clear()
        share = (time.perf_counter() - start) / len(group)
        self._shares = dict.fromkeys(group, share)

    def forecast(self, batch: Batch, ablation: Ablation) -> Forecast:
        """The forecast under `ablation`, the same to the last bit as without any sharing."""
        if ablation in self._alone:
            return self._alone.pop(ablation)
        with (
            applied(self._model, ablation, reference=self._reference),
            self._replay.reuse(_KEY, ablation.components, self._ahead.pop(ablation, None)),
        ):
            return self._model.forecast(batch.contexts, batch.horizon)

    def share(self, ablation: Ablation) -> float:
        """Seconds that running ahead took for this one."""
        return self._shares.pop(ablation, 0.0)

    def forget(self) -> None:
        """Drops everything that was made for the last batch."""
        self._replay.forget(_KEY)
        for held in (self._ahead, self._alone, self._shares):
            held.clear()

    def _alike(self, place: Place | None, ablations: Iterable[Ablation]) -> list[Ablation]:
        """The first of `ablations`, up to one whose lowest sublayer is another."""
        alike: list[Ablation] = []
        for ablation in ablations:
            if ablation in alike or self._replay.lowest(ablation.components) != place:
                break
            alike.append(ablation)
        return alike

    def _found(self, batch: Batch, place: Place, group: list[Ablation]) -> dict[Ablation, Ahead]:
        def together(numbers: Sequence[int]) -> AbstractContextManager[None]:
            return side_by_side(self._model, [group[n] for n in numbers], reference=self._reference)

        found = self._replay.ahead(_KEY, place, len(group), together)
        if found is None:
            self._refused.add((place, len(batch)))
            return {}
        shape = found[0].shape
        if shape in self._refused:
            self._refused.add((place, len(batch)))
            return {}
        if shape not in self._trusted or place < self._trusted[shape]:
            ends = [self._agrees(batch, group[n], found[n]) for n in (0, -1)]
            if not all(ends):
                self._refused |= {shape, (place, len(batch))}
                return {}
            self._trusted[shape] = place
        return {one: ahead for one, ahead in zip(group, found, strict=True) if one not in self._alone}

    def _agrees(self, batch: Batch, ablation: Ablation, ahead: Ahead) -> bool:
        """Whether `ablation` alone gives what was found ahead; its forecast is kept."""
        with (
            applied(self._model, ablation, reference=self._reference),
            self._replay.reuse(_KEY, ablation.components),
            self._replay.compared(ahead) as verdicts,
        ):
            self._alone[ablation] = self._model.forecast(batch.contexts, batch.horizon)
        return len(verdicts) == len(ahead.calls) and all(verdicts)
