"""Plan search: as much as possible removed for at most a given loss, choosing on calibration series.

1. What each class of component saves is measured (`savings`).
2. In rounds: every remaining component is ablated alone in the model as it is by now, on the
   calibration series; components are ordered by loss per saving.
3. As many of the first as fit half of what is left of the budget are removed together, if the loss of
   all of them, measured, is within the budget; else the first half of these, and so on.
4. The search ends when nothing fits any more. The other series are never looked at: they are for
   `compare`, which says what the plan costs, with intervals.

Choosing the cheapest of many on few series favours what is cheap on these by chance. So losses are
upper limits of their bootstrap intervals, and gains are not spent: neither does a component count as
less than free, nor does the budget grow beyond `max_loss` above the best score on the way.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tsprune.ablation import Ablation
from tsprune.anatomy import Anatomy, Component, Kind
from tsprune.data.split import CALIBRATION_FRACTION, split
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.evaluation.intervals import Change, Metric, Paired, change_interval
from tsprune.models.forecaster import Forecaster
from tsprune.pruning.plan import Plan
from tsprune.pruning.savings import Objective, Savings, is_inside, measure
from tsprune.pruning.surgery import prune
from tsprune.sweep.engine import BATCH_SIZE, Progress, run
from tsprune.sweep.result import CLEAN, SweepResult, WindowScores

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
    objective : what to save: "latency" (measured here), "flops" or "parameters"
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
    series = {c.name: c.series for c in calibration.configurations}
    scoring = _Scoring(metric, confidence, series, seed)
    search = _Search(model, calibration, scoring, batch_size, measure(model, objective), progress)
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
        confidence=confidence,
        calibration={
            "suite": suite.name,
            "fraction": calibration_fraction,
            "seed": seed,
            "fingerprint": calibration.fingerprint,
            "windows": len(calibration),
        },
        loss_on_calibration=search.loss,
        limit_of_loss=search.limit,
        expected_saving=search.saved,
        rounds=history,
    )


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
    """What is gone by now, and what it costs.

    gone : components removed, none inside another
    loss : relative to the original, on the calibration series
    limit : upper limit of that loss
    saved : expected share of the original's cost
    """

    def __init__(
        self,
        model: Forecaster,
        calibration: Suite,
        scoring: _Scoring,
        batch_size: int,
        savings: Savings,
        progress: Progress | None,
    ) -> None:
        self._original = self._current = model
        self._suite = calibration
        self._scoring = scoring
        self._batch_size = batch_size
        self._savings = savings
        self._progress = progress
        self._clean: _Scored | None = None  # of the original
        self._best = 0.0  # the lowest loss on the way, or 0
        self.gone: tuple[Component, ...] = ()
        self.loss = self.limit = 0.0
        self.saved = 0.0

    def round(self, max_loss: float, kinds: Sequence[Kind], *, last: bool) -> bool:
        """Removes some more; False if nothing fits. The last round may spend the whole budget."""
        candidates = [c for c in self._current.anatomy.components() if c.kind in kinds]
        candidates = [c for c in candidates if self._saving(c) > 0 and self._may_go((c,))]
        if not candidates:
            return False
        result = self._ablated([(c,) for c in candidates])
        now = _Scored.of(result, CLEAN)
        self._clean = self._clean or now
        alone = {c: _Scored.of(result, Ablation((c,))) for c in candidates}
        costs = {c: max(0.0, self._scoring.change(now, scored).high) for c, scored in alone.items()}
        budget = max_loss - max(0.0, self.loss)
        # of components that cost nothing the largest go first
        ordered = sorted(
            (c for c in candidates if costs[c] <= budget),
            key=lambda c: (costs[c] / self._saving(c), -self._saving(c), c.address),
        )
        for group in self._halved(self._fitting(ordered, costs, budget if last else budget / 2)):
            if self._remove_within(group, max_loss):
                return True
        return False

    def _saving(self, component: Component) -> float:
        return self._savings.of(component, self.gone)

    def _may_go(self, components: Sequence[Component]) -> bool:
        return _may_go((*self.gone, *components), self._original.anatomy)

    def _ablated(self, groups: Iterable[tuple[Component, ...]]) -> SweepResult:
        """Each group ablated in the model as it is by now."""
        ablations = [Ablation(group) for group in groups]
        return run(
            self._current, self._suite, ablations, batch_size=self._batch_size, progress=self._progress
        )

    def _fitting(
        self, ordered: Sequence[Component], costs: dict[Component, float], budget: float
    ) -> tuple[Component, ...]:
        """The first of `ordered` whose costs add up to at most `budget`, one at least."""
        chosen: tuple[Component, ...] = ()
        spent = 0.0
        for component in ordered:
            together = _with(chosen, component)
            covered = any(is_inside(component, c) for c in chosen)
            if covered or (chosen and spent + costs[component] > budget) or not self._may_go(together):
                continue
            chosen = together
            spent += costs[component]
        return chosen

    def _halved(self, chosen: tuple[Component, ...]) -> Iterable[tuple[Component, ...]]:
        """`chosen`, its first half, the first half of that, ..."""
        while chosen:
            yield chosen
            chosen = chosen[: len(chosen) // 2]

    def _remove_within(self, group: tuple[Component, ...], max_loss: float) -> bool:
        """Removes `group`, if what that costs together with all before is within the budget."""
        ablation = Ablation(group)
        assert self._clean is not None
        change = self._scoring.change(self._clean, _Scored.of(self._ablated([group]), ablation))
        if not (change.high <= max_loss and (1 + change.value) / (1 + self._best) - 1 <= max_loss):
            return False
        for component in group:
            self.saved += self._saving(component)
            self.gone = _with(self.gone, component)
        self.loss, self.limit = change.value, change.high
        self._best = min(self._best, change.value)
        self._current = prune(self._original, self.gone)
        return True


@dataclasses.dataclass(frozen=True)
class _Scored:
    """What one ablation scored: configuration -> its windows, and their statistics."""

    rows: Mapping[str, NDArray[np.int64]]
    scores: Mapping[str, WindowScores]

    @classmethod
    def of(cls, result: SweepResult, ablation: Ablation) -> _Scored:
        return cls(result.rows, result.scores[ablation])


@dataclasses.dataclass(frozen=True)
class _Scoring:
    """How a loss is measured on the calibration series, and how sure one wants to be of it."""

    metric: Metric
    confidence: float
    series: Mapping[str, NDArray[np.int64]]  # configuration -> which series a window is from
    seed: int

    def change(self, before: _Scored, after: _Scored) -> Change:
        """The loss on the same windows; `high` is its upper limit. What is not finite cannot go."""
        pairs = []
        for name, rows in before.rows.items():
            if not np.array_equal(rows, after.rows.get(name, ())):
                return _UNKNOWN  # some windows cannot be forecast any more
            scores = before.scores[name].statistics, after.scores[name].statistics
            pairs.append(Paired(*scores, self.series[name][rows]))
        level = 2 * self.confidence - 1  # of the interval whose upper end this is
        found = change_interval(pairs, self.metric, level=level, seed=self.seed)
        return found if math.isfinite(found.value) and math.isfinite(found.high) else _UNKNOWN


_UNKNOWN = Change(math.inf, math.inf, math.inf, 0.0, 0)


def _with(components: Sequence[Component], more: Component) -> tuple[Component, ...]:
    """`components` and `more`, without what is inside it."""
    return (*(c for c in components if not is_inside(c, more)), more)


def _may_go(components: Sequence[Component], anatomy: Anatomy) -> bool:
    """Whether every stack keeps a layer that has an MLP or a head."""
    gone = frozenset(anatomy.expand(components))
    kept = {stack.name: False for stack in anatomy.stacks}
    for component in anatomy.components():
        inside = component.kind in ("head", "mlp")
        whole = component if component.mlp else dataclasses.replace(component, head=None)
        kept[component.stack] |= inside and component not in gone and whole not in gone
    return all(kept.values())
