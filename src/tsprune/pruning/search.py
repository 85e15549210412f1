"""Plan search: as much as possible removed for at most a given loss, as calibration series show it.

1. Components are offered in the order in which the model's network changes least for what they save, on
   synthetic histories (`imitation.Walk`). That order knows nothing of the calibration series, so that
   these can tell what it costs: to choose the cheapest of many on a few hundred windows finds what is cheap
   there by chance, and is a good deal dearer elsewhere.
2. Each that is offered is removed if the model without it, and without all that went before, is within
   the budget on the calibration series; else it stays, and is not offered again.
3. The search ends when `PATIENCE` in a row had to stay, or nothing is left. The other series are never
   looked at: they are for `compare`, which says what the plan costs, with intervals.

What a component saves is counted (`savings`); no clock is read, so that the same model, suite and budget
give the same plan on any machine (but for rounding of forecasts). Losses are upper limits of their
bootstrap intervals, and gains are not spent: the budget does not grow beyond `max_loss` above the best score
on the way.
"""

from __future__ import annotations

from collections.abc import Sequence

from tsprune.anatomy import Kind
from tsprune.arguments import checked
from tsprune.data.split import CALIBRATION_FRACTION, split
from tsprune.data.suite import Suite
from tsprune.evaluation import METRICS
from tsprune.models.forecaster import Forecaster
from tsprune.pruning.imitation import KINDS, Imitation, Progress, Walk, check_kinds
from tsprune.pruning.losses import Losses, joined
from tsprune.pruning.plan import Plan
from tsprune.pruning.savings import Objective, measure
from tsprune.pruning.step import Step
from tsprune.sweeps.engine import BATCH_SIZE

PATIENCE = 8
CONFIDENCE = 0.8


@checked
def plan(
    model: Forecaster,
    suite: Suite,
    max_loss: float = 0.01,
    *,
    objective: Objective = "latency",
    metric: str = "MASE",
    kinds: Sequence[Kind] = KINDS,
    calibration_fraction: float = CALIBRATION_FRACTION,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    patience: int = PATIENCE,
    confidence: float = CONFIDENCE,
    progress: Progress | None = None,
) -> Plan:
    """What to remove from `model` for a loss of at most `max_loss` on the calibration series.

    max_loss : relative change of the metric's geometric mean over configurations, 0.01 is 1 %
    objective : what to save: "latency" (estimated, see `tsprune.cost.flops`), "flops" or "parameters"
    kinds : of the components that may go
    calibration_fraction, seed : which series it may look at (`tsprune.data.split`); the seed is also that
        of the synthetic histories
    confidence : that the loss on series like these is within the budget, over configurations (over
        series, of a single one); 0.5 takes their mean as it is
    patience : components in a row that cost too much, after which the search ends
    progress : called after each component that was tried, with (tried, of those there are)

    The plan may be empty, if nothing can go. Its provenance says how it was found and what it
    costs on the calibration series, which is too little: it was chosen on them.

    Raises TspruneError for a negative loss, no patience, unknown names, or a suite without calibration
    windows.
    """
    METRICS.named(metric)
    check_kinds(kinds)
    calibration, _ = split(suite, fraction=calibration_fraction, seed=seed)
    losses = Losses(calibration, metric, confidence, seed, batch_size)
    losses.require_units()
    walk = Walk(model, measure(model, objective), kinds, Imitation(model, seed=seed))
    reached = _walked(walk, losses, max_loss, patience, progress or (lambda done, total: None))
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


def _walked(walk: Walk, losses: Losses, max_loss: float, patience: int, progress: Progress) -> Step:
    """How far it goes within the budget."""
    clean, _ = losses.scored(walk.current, [])
    total = len(walk.current.anatomy.components())
    reached, stayed, tried = Step(), 0, 0
    while stayed < patience and (component := walk.next()) is not None:
        _, (after,) = losses.scored(walk.current, [(component,)])
        gone, saved = joined(walk.gone, component), walk.saved + walk.saving(component)
        step = reached.then(gone, saved, losses.change(clean, after))
        if step.fits(max_loss):
            reached, stayed = step, 0
            walk.remove(component)
        else:
            stayed += 1
        tried += 1
        progress(tried, total)
    return reached


def _account(reached: Step) -> list[dict[str, object]]:
    """The way to a plan: what each step added, and what it measured."""
    steps, before = [], Step()
    for step in reached.path():
        added = [c.address for c in step.components if c not in before.components]
        steps.append({"added": added, "saving": step.saved, "loss": step.loss, "limit": step.limit})
        before = step
    return steps
