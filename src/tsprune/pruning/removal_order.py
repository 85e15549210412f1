"""The order in which components are tried: by output change per unit of cost saved.

The change of the network's output is measured on synthetic series (`distillation`): as many as needed, and
none of the user's, which stay untouched to judge the loss. A search among many sets by scores on a few
hundred windows would instead pick those that are good by chance.

1. The saving of each component is counted (`savings`).
2. Each component is ablated alone. Its cost is the output change this adds, its price the cost divided by
   the saving.
3. The component of lowest price is tried next. Prices depend on the components removed before and rarely
   fall, so only the candidate at the head of the queue is priced again (lazy greedy: Minoux, Accelerated
   greedy algorithms for maximizing submodular set functions, 1978).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from tsprune.anatomy import Component, Kind
from tsprune.hooks.ablation import Ablation, applied
from tsprune.models.forecaster import Forecaster
from tsprune.progress import Progress, silent
from tsprune.pruning.distillation import FloatArray, histories, network_outputs, output_distance
from tsprune.pruning.savings import Components, Savings, joined, leaves_every_stack
from tsprune.pruning.surgery import prune
from tsprune.replay import Replay

HISTORIES = 128
HISTORY = 512
_BATCH = 64
_RECORD = "clean pass"


class OutputChange:
    """Distance of versions of a model from it, on fixed synthetic histories.

    count, history : number of histories, and steps of the longest
    seed : of the histories
    """

    def __init__(
        self, model: Forecaster, count: int = HISTORIES, history: int = HISTORY, seed: int = 0
    ) -> None:
        stream = histories(seed, 0, min(count, _BATCH), min(model.context_length, history))
        batches: list[list[FloatArray]] = []
        while sum(map(len, batches)) < count:
            batches.append(next(stream))
        self._model = model
        self._targets = [(contexts, network_outputs(model, contexts)) for contexts in batches]

    def distance(self, current: Forecaster, ablated: Components = ()) -> float:
        """Mean distance over the histories of `current` without `ablated`; infinite if it is not finite."""
        with applied(current, Ablation(ablated)):
            return self._mean(
                [
                    float(output_distance(self._model, network_outputs(current, contexts), targets))
                    for contexts, targets in self._targets
                ]
            )

    def alone(self, components: Sequence[Component], progress: Progress) -> dict[Component, float]:
        """The `distance` of the model without each of `components` alone, to the last bit, with replay.

        progress : its stage is "pricing", ablations done and all of them
        """
        replay = Replay(self._model, whole_readout=True)
        found: dict[Component, list[float]] = {component: [] for component in components}
        done, total = 0, len(components) * len(self._targets)
        for contexts, targets in self._targets:
            again = partial(network_outputs, self._model, contexts)
            with replay.record(_RECORD):
                again()
            for component in components:
                with applied(self._model, Ablation((component,))):
                    outputs = replay.computed(_RECORD, (component,), again)
                found[component].append(float(output_distance(self._model, outputs, targets)))
                done += 1
                progress("pricing", done, total)
            replay.forget(_RECORD)
        return {component: self._mean(distances) for component, distances in found.items()}

    def _mean(self, distances: Sequence[float]) -> float:
        """The mean over histories of distances by batch."""
        windows = [len(contexts) for contexts, _ in self._targets]
        mean = sum(a * b for a, b in zip(distances, windows, strict=True)) / sum(windows)
        return mean if math.isfinite(mean) else math.inf


class _Candidate(NamedTuple):
    """A component in the queue; the next to be tried sorts first.

    price : cost per saving when `removals` components were removed
    minus_saving : of equal prices, the larger saving comes first
    """

    price: float
    minus_saving: float
    address: str
    removals: int
    component: Component


class GreedyRemoval:
    """Removes components from a model one after the other, by lowest price.

    removed, saved, distance : the components removed, the share of the cost they save, and the distance of
        the pruned model from the whole one
    wanted : share to save in the end; savings beyond it do not lower a price
    progress : of the first prices, see `OutputChange.alone`
    """

    def __init__(
        self,
        model: Forecaster,
        savings: Savings,
        kinds: Sequence[Kind],
        change: OutputChange,
        wanted: float = math.inf,
        progress: Progress = silent,
    ) -> None:
        self._model, self._savings, self._change, self._wanted = model, savings, change, wanted
        self.current = model
        self.removed: Components = ()
        self.saved, self.distance = 0.0, 0.0
        worth = {c: self._worth(c) for c in model.anatomy.components() if c.kind in kinds}
        offered = {c: saving for c, saving in worth.items() if saving is not None}
        distances = change.alone(list(offered), progress)
        self._queue = [self._priced(c, saving, distances[c]) for c, saving in offered.items()]
        heapq.heapify(self._queue)

    def next(self) -> Component | None:
        """The component of lowest price, which leaves the queue; None if the queue is empty."""
        while self._queue:
            candidate = heapq.heappop(self._queue)
            if candidate.removals == len(self.removed):
                return candidate.component
            priced = self._candidate(candidate.component)
            if priced is not None:
                heapq.heappush(self._queue, priced)
        return None

    def saving(self, component: Component) -> float:
        """The additional saving of `component` after the components removed."""
        return self._savings.of(component, self.removed)

    def remove(self, component: Component) -> None:
        """Removes a component that `next` returned."""
        self.saved += self.saving(component)
        self.removed = joined(self.removed, component)
        self.current = prune(self._model, self.removed)
        self.distance = self._change.distance(self.current)

    def _worth(self, component: Component) -> float | None:
        """The saving of a candidate; None if nothing (more) is saved, or a stack would be empty."""
        saving = min(self.saving(component), self._wanted - self.saved)
        if saving <= 0 or component not in self.current.anatomy.components():
            return None
        return saving if leaves_every_stack((*self.removed, component), self._model.anatomy) else None

    def _candidate(self, component: Component) -> _Candidate | None:
        saving = self._worth(component)
        if saving is None:
            return None
        return self._priced(component, saving, self._change.distance(self.current, (component,)))

    def _priced(self, component: Component, saving: float, distance: float) -> _Candidate:
        """distance : of the model without `component` and all that was removed"""
        cost = max(0.0, distance - self.distance)
        return _Candidate(cost / saving, -saving, component.address, len(self.removed), component)
