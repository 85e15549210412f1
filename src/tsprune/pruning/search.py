"""Plan search: as much as possible removed for at most a given loss, choosing on calibration series.

1. What each class of component saves is measured (`savings`).
2. In rounds: every remaining component is ablated alone in the model as it is by now, on the
   calibration series; components are ordered by loss per saving.
3. The head of that order that fits half of what is left of the budget is removed together, if the
   loss of all of it, measured, is within the budget; else a shorter head of it.
4. The search ends when nothing fits any more. The other series are never looked at: they are for
   `compare`, which says what the plan costs, with intervals.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

from tsprune.ablation import Ablation
from tsprune.anatomy import Anatomy, Component, Kind
from tsprune.data.split import split
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.models.forecaster import Forecaster
from tsprune.pruning.plan import Plan
from tsprune.pruning.savings import Objective, Savings, is_inside, measure
from tsprune.pruning.surgery import prune
from tsprune.sweep.engine import BATCH_SIZE, Progress, run

Metric = Literal["MASE", "CRPS"]
ROUNDS = 8
KINDS: tuple[Kind, ...] = ("head", "mlp", "attention", "layer")


def plan(
    model: Forecaster,
    suite: Suite,
    max_loss: float = 0.01,
    *,
    objective: Objective = "latency",
    metric: Metric = "MASE",
    kinds: Sequence[Kind] = KINDS,
    calibration_fraction: float = 0.5,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    rounds: int = ROUNDS,
    progress: Progress | None = None,
) -> Plan:
    """What to remove from `model` for a loss of at most `max_loss` on the calibration series.

    max_loss : relative change of the metric's geometric mean over configurations, 0.01 is 1 %
    objective : what to save: "latency" (measured here), "flops" or "parameters"
    kinds : of the components that may go
    calibration_fraction, seed : which series it may look at (`tsprune.data.split`)
    rounds : at most so many times everything that is left is measured again

    The plan may be empty, if nothing can go. Its provenance says how it was found and what it
    costs on the calibration series, which is too little: it was chosen on them.

    Raises TspruneError for a negative loss, unknown names, or a suite without calibration windows.
    """
    _check(max_loss, metric, kinds)
    calibration, _ = split(suite, fraction=calibration_fraction, seed=seed)
    search = _Search(model, calibration, metric, batch_size, measure(model, objective), progress)
    history = []
    for index in range(rounds):
        if not search.round(max_loss, kinds, last=index == rounds - 1):
            break
        history.append({"removed": len(search.gone), "loss": search.loss})
    return Plan.of(
        model,
        search.gone,
        chosen="plan search",
        objective=objective,
        metric=metric,
        max_loss=max_loss,
        calibration={
            "suite": suite.name,
            "fraction": calibration_fraction,
            "seed": seed,
            "fingerprint": calibration.fingerprint,
            "windows": len(calibration),
        },
        loss_on_calibration=search.loss,
        expected_saving=search.saved,
        rounds=history,
    )


def _check(max_loss: float, metric: str, kinds: Sequence[str]) -> None:
    if not max_loss >= 0 or math.isinf(max_loss):
        raise TspruneError(f"the loss allowed must be a number of at least 0, not {max_loss}")
    if metric not in ("MASE", "CRPS"):
        raise TspruneError(f"unknown metric {metric!r}; one of: MASE, CRPS")
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise TspruneError(f"unknown kind {', '.join(unknown)!r}; some of: {', '.join(KINDS)}")


class _Search:
    """What is gone by now, and what it costs.

    gone : components removed, none inside another
    loss : relative to the original, on the calibration series
    saved : expected share of the original's cost
    """

    def __init__(
        self,
        model: Forecaster,
        calibration: Suite,
        metric: Metric,
        batch_size: int,
        savings: Savings,
        progress: Progress | None,
    ) -> None:
        self._original = self._current = model
        self._suite = calibration
        self._metric = metric
        self._batch_size = batch_size
        self._savings = savings
        self._progress = progress
        self.gone: tuple[Component, ...] = ()
        self.loss = 0.0
        self.saved = 0.0

    def round(self, max_loss: float, kinds: Sequence[Kind], *, last: bool) -> bool:
        """Removes some more; False if nothing fits. The last round may spend the whole budget."""
        candidates = [c for c in self._current.anatomy.components() if c.kind in kinds]
        candidates = [c for c in candidates if self._saving(c) > 0 and _may_go((c,), self._current.anatomy)]
        if not candidates:
            return False
        alone = self._losses([(c,) for c in candidates])
        effects = dict(zip(candidates, alone, strict=True))
        budget = (1 + max_loss) / (1 + self.loss) - 1  # of what is left
        fitting = [c for c in candidates if effects[c] <= budget]
        ordered = sorted(fitting, key=lambda c: (_price(effects[c], self._saving(c)), c.address))
        chosen = self._head(ordered, effects, budget if last else budget / 2)
        for group, loss in self._tried(chosen, budget):
            self._remove(group, loss)
            return True
        return False

    def _saving(self, component: Component) -> float:
        return self._savings.of(component, self.gone)

    def _losses(self, groups: Iterable[tuple[Component, ...]]) -> list[float]:
        """Relative change of the metric when each group is ablated in the model as it is by now."""
        ablations = [Ablation(group) for group in groups]
        result = run(
            self._current, self._suite, ablations, batch_size=self._batch_size, progress=self._progress
        )
        changes = [result.change(ablation) for ablation in ablations]
        found = [change.mase if self._metric == "MASE" else change.crps for change in changes]
        return [value if math.isfinite(value) else math.inf for value in found]

    def _head(
        self, ordered: Sequence[Component], effects: dict[Component, float], budget: float
    ) -> tuple[Component, ...]:
        """The first of `ordered` whose losses, gains not counted, add up to at most `budget`."""
        chosen: list[Component] = []
        spent = 0.0
        for component in ordered:
            if any(is_inside(component, c) for c in chosen):
                continue
            cost = max(0.0, effects[component])
            together = _with(chosen, component)
            if (spent + cost > budget and chosen) or not _may_go(together, self._current.anatomy):
                continue
            chosen = list(together)
            spent += cost
        return tuple(chosen)

    def _tried(
        self, chosen: tuple[Component, ...], budget: float
    ) -> Iterable[tuple[tuple[Component, ...], float]]:
        """Heads of `chosen`, longest first, that measure within the budget when ablated together."""
        lengths = []
        length = len(chosen)
        while length:
            lengths.append(length)
            length //= 2
        groups = [chosen[:n] for n in lengths]
        for group, loss in zip(groups, self._losses(groups), strict=True):
            if loss <= budget:
                yield group, loss

    def _remove(self, group: tuple[Component, ...], loss: float) -> None:
        for component in group:
            self.saved += self._saving(component)
            self.gone = _with(self.gone, component)
        self.loss = (1 + self.loss) * (1 + loss) - 1
        self._current = prune(self._original, self.gone)


def _price(effect: float, saving: float) -> float:
    """Loss per saving; what gains accuracy comes first, the most per saving before the rest."""
    return effect / saving


def _with(components: Sequence[Component], more: Component) -> tuple[Component, ...]:
    """`components` and `more`, without what is inside it."""
    return (*(c for c in components if not is_inside(c, more)), more)


def _may_go(components: Sequence[Component], anatomy: Anatomy) -> bool:
    """Whether every stack keeps a layer."""
    layers = {(c.stack, c.layer) for c in components if c.kind == "layer"}
    return all(
        any((stack.name, number) not in layers for number in stack.numbers) for stack in anatomy.stacks
    )
