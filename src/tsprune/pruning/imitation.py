"""Choosing by imitation: what is left says what the whole model says, as nearly as it can.

Scores on some hundred windows tell components apart by chance as much as by merit, and a search among
many sets finds the chance. How far a network is from the whole one can be measured on as many synthetic
histories as one likes (`distillation`): it looks at no series of the user's, so that all of them are left
to say what was lost, and it is what recovery, afterwards, makes smaller.

1. What each component saves is counted (`savings`).
2. Each is ablated alone: its cost is the distance that this adds, its price the cost for what it saves.
3. The one of lowest price is removed, and again. Prices depend on what is gone, and rarely fall; so before
   one is removed its price is found anew, and if another's, as last found, is lower by now, that one is
   looked at first (lazy greedy: Minoux, Accelerated greedy algorithms for maximizing submodular set
   functions, 1978). Others wait.

`plan_saving` goes on until a given share is saved. `tsprune.plan` walks the same way as far as scores on
calibration series allow.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tsprune.anatomy import Component, Kind
from tsprune.arguments import checked
from tsprune.errors import TspruneError
from tsprune.hooks.ablation import Ablation, applied
from tsprune.models.forecaster import Forecaster
from tsprune.pruning.distillation import Array, histories, output_distance, said
from tsprune.pruning.losses import Components, joined, may_go
from tsprune.pruning.plan import Plan
from tsprune.pruning.savings import Objective, Savings, measure
from tsprune.pruning.surgery import prune

HISTORIES, BATCH_SIZE = 128, 64
HISTORY = 512  # steps of the longest
KINDS: tuple[Kind, ...] = ("head", "mlp", "attention", "layer")

Progress = Callable[[int, int], None]  # (done, of all)


@checked
def plan_saving(
    model: Forecaster,
    saving: float,
    *,
    objective: Objective = "latency",
    kinds: Sequence[Kind] = KINDS,
    count: int = HISTORIES,
    history: int = HISTORY,
    seed: int = 0,
    progress: Progress | None = None,
) -> Plan:
    """What to remove from `model` to save a given share, chosen on synthetic series alone.

    saving : 0.3 is 30 % of what the objective counts; the plan saves that or a little more
    objective : what to save: "latency" (estimated, see `tsprune.cost.flops`), "flops" or "parameters"
    kinds : of the components that may go
    count : synthetic histories that the models are compared on; history: steps of the longest
    seed : of these histories
    progress : called after each removal with per mille (of what is to be saved, 1000)

    The plan's provenance has the distance after each removal (its unit: see `distillation`).

    Raises TspruneError for a share outside of (0, 1), for unknown names, or if so much cannot be saved.
    """
    check_kinds(kinds)
    savings = measure(model, objective)
    walk = Walk(model, savings, kinds, Imitation(model, count, history, seed), wanted=saving)
    path: list[dict[str, object]] = []
    while walk.saved < saving - 1e-9:
        component = walk.next()
        if component is None:
            raise TspruneError(
                f"no more than {walk.saved:.1%} of {objective} can be saved in {model.name} by removing "
                f"{', '.join(kinds)}; ask for less"
            )
        walk.remove(component)
        path.append({"added": [component.address], "saving": walk.saved, "distance": walk.distance})
        if progress is not None:
            progress(round(1000 * min(1.0, walk.saved / saving)), 1000)
    return Plan.of(
        model,
        walk.gone,
        chosen="imitation of the whole model on synthetic histories",
        objective=objective,
        saving=saving,
        expected_saving=walk.saved,
        histories={"count": count, "history": history, "seed": seed},
        path=path,
    )


def check_kinds(kinds: Sequence[str]) -> None:
    """TspruneError unless there are some, all of them known."""
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise TspruneError(f"unknown kind {', '.join(unknown)!r}; some of: {', '.join(KINDS)}")


class Imitation:
    """How far versions of a model are from it, on synthetic histories that stay the same.

    count : of the histories; history: steps of the longest; seed: of all
    """

    def __init__(
        self, model: Forecaster, count: int = HISTORIES, history: int = HISTORY, seed: int = 0
    ) -> None:
        stream = histories(seed, 0, min(count, BATCH_SIZE), min(model.context_length, history))
        batches: list[list[Array]] = []
        while sum(map(len, batches)) < count:
            batches.append(next(stream))
        self._model = model
        self._asked = [(contexts, said(model, contexts)) for contexts in batches]

    def distance(self, current: Forecaster, gone: Components = ()) -> float:
        """Of `current` without `gone`, mean over the histories; infinite if it says nothing finite."""
        with applied(current, Ablation(gone)):
            found = [
                float(output_distance(self._model, said(current, contexts), targets))
                for contexts, targets in self._asked
            ]
        windows = [len(contexts) for contexts, _ in self._asked]
        mean = sum(a * b for a, b in zip(found, windows, strict=True)) / sum(windows)
        return mean if math.isfinite(mean) else math.inf


class _Offer(NamedTuple):
    """A component in the queue; the first to go sorts first.

    price : what it costs for what it saves, when `removals` components were gone
    minus_saving : of equal prices, what saves most goes first
    """

    price: float
    minus_saving: float
    address: str
    removals: int
    component: Component


class Walk:
    """Removes components from a model one after the other, those of lowest price first.

    gone, saved, distance : what was removed, the share that saves, and how far it is from the whole model
    wanted : share to be saved in the end; what a component saves beyond that counts for nothing
    """

    def __init__(
        self,
        model: Forecaster,
        savings: Savings,
        kinds: Sequence[Kind],
        imitation: Imitation,
        wanted: float = math.inf,
    ) -> None:
        self._model, self.current = model, model
        self._savings = savings
        self._imitation = imitation
        self._wanted = wanted
        self.gone: Components = ()
        self.saved = 0.0
        self.distance = 0.0
        offers = (self._offer(c) for c in model.anatomy.components() if c.kind in kinds)
        self._queue = [offer for offer in offers if offer is not None]
        heapq.heapify(self._queue)

    def next(self) -> Component | None:
        """The component of lowest price, which is not offered again; None if nothing is left."""
        while self._queue:
            offer = heapq.heappop(self._queue)
            if offer.removals == len(self.gone):
                return offer.component
            anew = self._offer(offer.component)
            if anew is not None:
                heapq.heappush(self._queue, anew)
        return None

    def saving(self, component: Component) -> float:
        """What `component` would save beside what is gone."""
        return self._savings.of(component, self.gone)

    def remove(self, component: Component) -> None:
        """Removes what `next` returned."""
        self.saved += self.saving(component)
        self.gone = joined(self.gone, component)
        self.current = prune(self._model, self.gone)
        self.distance = self._imitation.distance(self.current)

    def _offer(self, component: Component) -> _Offer | None:
        """None if there is nothing (more) to save, or nothing would be left."""
        saving = min(self.saving(component), self._wanted - self.saved)
        if saving <= 0 or component not in self.current.anatomy.components():
            return None
        if not may_go((*self.gone, component), self._model.anatomy):
            return None
        cost = max(0.0, self._imitation.distance(self.current, (component,)) - self.distance)
        return _Offer(cost / saving, -saving, component.address, len(self.gone), component)
