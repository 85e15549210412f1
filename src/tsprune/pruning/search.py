"""Plan search: as much as possible removed for at most a given loss, choosing on calibration series.

1. What each class of component saves is counted (`savings`); no clock is read, so that the same model,
   suite and budget give the same plan on any machine (but for rounding of forecasts).
2. Sets of whole layers and sublayers are searched first (`beam`): they save most, and most time for what
   they cost. The set within the budget that saves most is removed.
3. In rounds: every component that is left is ablated alone in the model as it is by now, on the
   calibration series; components are ordered by loss per saving. As many of the first as fit half of what
   is left of the budget are removed together, if the loss of all of them, measured, is within the budget;
   else the first half of these, and so on.
4. The search ends when nothing fits any more. The other series are never looked at: they are for
   `compare`, which says what the plan costs, with intervals.

Choosing the cheapest of many on few series favours what is cheap on these by chance. So losses are
upper limits of their bootstrap intervals, and gains are not spent: neither does a component count as
less than free, nor does the budget grow beyond `max_loss` above the best score on the way.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from tsprune.anatomy import Component, Kind
from tsprune.data.split import CALIBRATION_FRACTION, split
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.evaluation.intervals import Metric
from tsprune.models.forecaster import Forecaster
from tsprune.pruning.beam import Step, beam
from tsprune.pruning.losses import Losses, joined, may_go
from tsprune.pruning.plan import Plan
from tsprune.pruning.savings import Objective, Savings, is_inside, measure
from tsprune.pruning.surgery import prune
from tsprune.sweep.engine import BATCH_SIZE, Progress

ROUNDS = 8
CONFIDENCE = 0.8
KINDS: tuple[Kind, ...] = ("head", "mlp", "attention", "layer")


def plan(
    model: Forecaster,
    suite: Suite,
    max_loss: float = 0.01,
    *,
    objective: Objective = "latency",
    metric: Metric = "MASE",
    kinds: Sequence[Kind] = KINDS,
    calibration_fraction: float = CALIBRATION_FRACTION,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    rounds: int = ROUNDS,
    confidence: float = CONFIDENCE,
    progress: Progress | None = None,
) -> Plan:
    """What to remove from `model` for a loss of at most `max_loss` on the calibration series.

    max_loss : relative change of the metric's geometric mean over configurations, 0.01 is 1 %
    objective : what to save: "latency" (estimated, see `tsprune.evaluation.work`), "flops" or "parameters"
    kinds : of the components that may go
    calibration_fraction, seed : which series it may look at (`tsprune.data.split`)
    confidence : that the loss on series like these is within the budget, from a bootstrap over the
        calibration series; 0.5 takes their mean as it is
    rounds : at most so many times everything that is left is measured again

    The plan may be empty, if nothing can go. Its provenance says how it was found and what it
    costs on the calibration series, which is too little: it was chosen on them.

    Raises TspruneError for a negative loss, unknown names, or a suite without calibration windows.
    """
    _check(max_loss, metric, kinds, confidence)
    calibration, _ = split(suite, fraction=calibration_fraction, seed=seed)
    losses = Losses(calibration, metric, confidence, seed, batch_size, progress)
    savings = measure(model, objective)
    found = [step for step in beam(model, losses, savings, max_loss, kinds=kinds) if step.fits(max_loss)]
    start = max(found, key=lambda step: step.saved, default=Step())
    search = _Search(model, losses, savings, start)
    for index in range(rounds):
        if not search.round(max_loss, kinds, last=index == rounds - 1):
            break
    reached = search.reached
    return Plan.of(
        model,
        reached.components,
        chosen="plan search",
        objective=objective,
        metric=metric,
        max_loss=max_loss,
        confidence=confidence,
        calibration={
            "suite": suite.name,
            "fraction": calibration_fraction,
            "seed": seed,
            "fingerprint": calibration.fingerprint,
            "windows": len(calibration),
        },
        loss_on_calibration=reached.loss,
        limit_of_loss=reached.limit,
        expected_saving=reached.saved,
        path=_account(reached),
    )


def _account(reached: Step) -> list[dict[str, object]]:
    """The way to a plan: what each step added (what was inside that went with it), and what it measured."""
    steps, before = [], Step()
    for step in reached.path():
        added = [c.address for c in step.components if c not in before.components]
        steps.append({"added": added, "saving": step.saved, "loss": step.loss, "limit": step.limit})
        before = step
    return steps


def _check(max_loss: float, metric: str, kinds: Sequence[str], confidence: float) -> None:
    if not max_loss >= 0 or math.isinf(max_loss):
        raise TspruneError(f"the loss allowed must be a number of at least 0, not {max_loss}")
    if not 0.5 <= confidence < 1:
        raise TspruneError(f"the confidence must be at least 0.5 and below 1, not {confidence}")
    if metric not in ("MASE", "CRPS"):
        raise TspruneError(f"unknown metric {metric!r}; one of: MASE, CRPS")
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise TspruneError(f"unknown kind {', '.join(unknown)!r}; some of: {', '.join(KINDS)}")


class _Search:
    """The rounds of the search, from a set of layers and sublayers on; `reached` is how far it is."""

    def __init__(self, model: Forecaster, losses: Losses, savings: Savings, start: Step) -> None:
        self._original = model
        self._losses = losses
        self._savings = savings
        self.reached = start
        self._current = prune(model, start.components) if start.components else model
        self._clean, _ = losses.scored(model, [])

    def round(self, max_loss: float, kinds: Sequence[Kind], *, last: bool) -> bool:
        """Removes some more; False if nothing fits. The last round may spend the whole budget."""
        candidates = [c for c in self._current.anatomy.components() if c.kind in kinds]
        candidates = [c for c in candidates if self._saving(c) > 0 and self._may_go((c,))]
        if not candidates:
            return False
        now, scored = self._losses.scored(self._current, [(c,) for c in candidates])
        changes = (self._losses.change(now, after).high for after in scored)
        costs = {c: max(0.0, high) for c, high in zip(candidates, changes, strict=True)}
        budget = max_loss - max(0.0, self.reached.loss)
        # of components that cost nothing the largest go first
        ordered = sorted(
            (c for c in candidates if costs[c] <= budget),
            key=lambda c: (costs[c] / self._saving(c), -self._saving(c), c.address),
        )
        groups = _halved(self._fitting(ordered, costs, budget if last else budget / 2))
        return any(self._remove_within(group, max_loss) for group in groups)

    def _saving(self, component: Component) -> float:
        return self._savings.of(component, self.reached.components)

    def _may_go(self, components: Sequence[Component]) -> bool:
        return may_go((*self.reached.components, *components), self._original.anatomy)

    def _fitting(
        self, ordered: Sequence[Component], costs: dict[Component, float], budget: float
    ) -> tuple[Component, ...]:
        """The first of `ordered` whose costs add up to at most `budget`, one at least."""
        chosen: tuple[Component, ...] = ()
        spent = 0.0
        for component in ordered:
            together = joined(chosen, component)
            covered = any(is_inside(component, c) for c in chosen)
            if covered or (chosen and spent + costs[component] > budget) or not self._may_go(together):
                continue
            chosen = together
            spent += costs[component]
        return chosen

    def _remove_within(self, group: tuple[Component, ...], max_loss: float) -> bool:
        """Removes `group`, if what that costs together with all before is within the budget."""
        _, (after,) = self._losses.scored(self._current, [group])
        gone, saved = self.reached.components, self.reached.saved
        for component in group:
            saved += self._savings.of(component, gone)
            gone = joined(gone, component)
        step = self.reached.then(gone, saved, self._losses.change(self._clean, after))
        if not step.fits(max_loss):
            return False
        self.reached = step
        self._current = prune(self._original, gone)
        return True


def _halved(chosen: tuple[Component, ...]) -> Iterable[tuple[Component, ...]]:
    """`chosen`, its first half, the first half of that, ..."""
    while chosen:
        yield chosen
        chosen = chosen[: len(chosen) // 2]
