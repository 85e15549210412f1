"""The order in which components are tried: by output change per unit of cost saved.

The change of the network's output is measured on synthetic series (`distillation`): as many as needed, and
none of the user's, which stay untouched to judge the loss. A search among many sets by scores on a few
hundred windows would instead pick those that are good by chance.

1. The saving of each component is counted (`savings`).
2. Each component is ablated alone on `FIRST` of the series. Its cost is the output change this adds, its
   price the cost divided by the saving. These first prices are lowered, so that a component is not passed
   over because its price is overestimated.
3. The component of lowest price is tried next, if that price was measured on all series after the last
   removal; otherwise it is priced again. Prices depend on the components removed before and rarely fall, so
   only candidates at the head of the queue are priced again (lazy greedy: Minoux, Accelerated greedy
   algorithms for maximizing submodular set functions, 1978).

The components removed so far are ablated, not cut out, so the search needs no copy of the model. What lies
upstream of a candidate is replayed (`tsprune.replay`).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from tsprune.anatomy import Component, Kind
from tsprune.hooks.ablation import Ablation, applied
from tsprune.memory import in_parts
from tsprune.models.forecaster import Forecaster
from tsprune.models.removal import components_left
from tsprune.progress import Progress, silent
from tsprune.pruning.distillation import FloatArray, histories, network_outputs, output_distance
from tsprune.pruning.savings import Components, Savings, joined, leaves_every_stack
from tsprune.pruning.surgery import prune
from tsprune.replay import Replay
from tsprune.run_options import MEMORY

HISTORIES = 128
HISTORY = 512
FIRST = 8  # histories of the first prices
# first prices may be twice the right ones; lowered by this factor, few are above these
_LOWERED = 0.4
_BATCH = 64

_Key = tuple[int, int, int]  # number of a batch, and places of its histories


class OutputChange:
    """Distances of ablated versions of a model from it, on fixed synthetic histories.

    count, history : number of histories, and steps of the longest
    seed : of the histories
    memory : bytes that the records of unablated passes may hold
    """

    def __init__(
        self,
        model: Forecaster,
        count: int = HISTORIES,
        history: int = HISTORY,
        seed: int = 0,
        memory: int = MEMORY,
    ) -> None:
        stream = histories(seed, 0, min(count, _BATCH), min(model.context_length, history))
        self._batches: list[list[FloatArray]] = []
        while sum(map(len, self._batches)) < count:
            self._batches.append(next(stream))
        self._model = model
        self._replay = Replay(model, memory, whole_readout=True)
        self._removed: Components = ()  # of the records
        self._recorded: set[_Key] = set()
        self._most = _BATCH  # histories that fit into memory together
        self._targets = [self._outputs(number, range(len(b))) for number, b in enumerate(self._batches)]

    @property
    def few(self) -> bool:
        """Whether `alone` uses all histories."""
        return sum(map(len, self._batches)) <= FIRST

    def alone(self, components: Sequence[Component], progress: Progress) -> dict[Component, float]:
        """The distance of the model without each of `components` alone, on `FIRST` of the longest histories.

        progress : its stage is "pricing", ablations done and all of them
        """
        self._start_from(())
        number = max(range(len(self._batches)), key=lambda number: len(self._batches[number][0]))
        places = range(min(FIRST, len(self._batches[number])))
        found: dict[Component, float] = {}
        for component in components:
            found[component] = _mean([(self._distance(number, places, component), 1)])
            progress("pricing", len(found), len(components))
        self._forget()
        return found

    def without(self, component: Component, removed: Components = ()) -> float:
        """The distance of the model without `removed` and `component`; infinite if it is not finite."""
        self._start_from(removed)
        every = ((number, range(len(batch))) for number, batch in enumerate(self._batches))
        return _mean([(self._distance(*at, component), len(at[1])) for at in every])

    def _start_from(self, removed: Components) -> None:
        if removed != self._removed:
            self._forget()
            self._removed = removed

    def _forget(self) -> None:
        for key in self._recorded:
            self._replay.forget(key)
        self._recorded.clear()

    def _distance(self, number: int, places: range, component: Component) -> float:
        """Distance on some histories of a batch; its units are those of the whole batch."""
        outputs, targets = self._outputs(number, places, component), self._targets[number]
        count, total = len(places), len(self._batches[number])
        if count < total:  # the others differ by nothing
            outputs = [
                torch.cat([own, all_[count:].to(own)]) for own, all_ in zip(outputs, targets, strict=True)
            ]
        return float(output_distance(self._model, outputs, targets)) * total / count

    def _outputs(self, number: int, places: range, component: Component | None = None) -> list[Tensor]:
        """Outputs for some histories, in smaller parts if memory runs out."""
        work = partial(self._of_part, number, component)
        parts = list(in_parts(work, places, self._most))
        if len(parts) > 1:
            self._most = min(self._most, parts[0][0].stop)
        return [torch.cat(tensors) for tensors in zip(*(outputs for _, outputs in parts), strict=True)]

    def _of_part(self, number: int, component: Component | None, places: Sequence[int]) -> list[Tensor]:
        """Outputs for neighbouring histories of a batch, without the removed components and `component`."""
        contexts = self._batches[number][places[0] : places[-1] + 1]
        again = partial(network_outputs, self._model, contexts)
        if component is None:
            return again()
        key = number, places[0], places[-1]
        try:
            if key not in self._recorded:
                with applied(self._model, Ablation(self._removed)), self._replay.record(key):
                    again()
                self._recorded.add(key)
            with applied(self._model, Ablation(joined(self._removed, component))):
                return self._replay.computed(key, (component,), again)
        except (RuntimeError, MemoryError):
            self._forget()
            raise


def _mean(distances: Sequence[tuple[float, int]]) -> float:
    """The mean over histories of (distance, histories) by batch; infinite if it is not finite."""
    mean = sum(distance * count for distance, count in distances) / sum(count for _, count in distances)
    return mean if math.isfinite(mean) else math.inf


class _Candidate(NamedTuple):
    """A component in the queue; the next to be tried sorts first.

    price : cost per saving
    minus_saving : of equal prices, the larger saving comes first
    removals : number of removals before it was priced; -1: the price is of a few histories
    distance : of the model without the component and all removed before
    """

    price: float
    minus_saving: float
    address: str
    removals: int
    distance: float
    component: Component


class GreedyRemoval:
    """Removes components from a model one after the other, by lowest price.

    removed, saved, distance : the components removed, the share of the cost they save, and the distance of
        the model without them from the whole one
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
        self.removed: Components = ()
        self.saved, self.distance = 0.0, 0.0
        self._removals, self._offered = 0, 0.0
        self._left = components_left(model, ())
        self._pruned: Forecaster | None = model
        worth = {c: self._worth(c) for c in model.anatomy.components() if c.kind in kinds}
        offered = {c: saving for c, saving in worth.items() if saving is not None}
        distances = change.alone(list(offered), progress)
        first = 0 if change.few else -1
        self._queue = [self._priced(c, saving, distances[c], first) for c, saving in offered.items()]
        heapq.heapify(self._queue)

    @property
    def current(self) -> Forecaster:
        """The model without the components removed, cut out when it is first asked for."""
        if self._pruned is None:
            self._pruned = prune(self._model, self.removed)
        return self._pruned

    def next(self) -> Component | None:
        """The component of lowest price, which leaves the queue; None if the queue is empty."""
        while self._queue:
            candidate = heapq.heappop(self._queue)
            if candidate.removals == self._removals:
                self._offered = candidate.distance
                return candidate.component
            saving = self._worth(candidate.component)
            if saving is not None:
                distance = self._change.without(candidate.component, self.removed)
                heapq.heappush(
                    self._queue, self._priced(candidate.component, saving, distance, self._removals)
                )
        return None

    def saving(self, component: Component) -> float:
        """The additional saving of `component` after the components removed."""
        return self._savings.of(component, self.removed)

    def remove(self, component: Component) -> None:
        """Removes the component that `next` returned last."""
        self.saved += self.saving(component)
        self.removed = joined(self.removed, component)
        self.distance = self._offered
        self._removals += 1
        self._left = components_left(self._model, self.removed)
        self._pruned = None

    def _worth(self, component: Component) -> float | None:
        """The saving of a candidate; None if nothing (more) is saved, or a stack would be empty."""
        saving = min(self.saving(component), self._wanted - self.saved)
        if saving <= 0 or component not in self._left:
            return None
        return saving if leaves_every_stack((*self.removed, component), self._model.anatomy) else None

    def _priced(self, component: Component, saving: float, distance: float, removals: int) -> _Candidate:
        """distance : of the model without `component` and all that was removed"""
        cost = max(0.0, distance - self.distance) * (_LOWERED if removals < 0 else 1)
        return _Candidate(cost / saving, -saving, component.address, removals, distance, component)
