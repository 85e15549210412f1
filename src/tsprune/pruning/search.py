"""`plan`: which components to remove for a given loss, or for a given saving.

Candidates are tried in order of output change on synthetic series per unit of cost saved
(`removal_order`).

- `saving`: candidates are removed until that share of the cost is saved. No series of the user is used.
- `max_loss`: a candidate is removed if the model without it, and without all removed before, is within the
  budget on the calibration series; else it stays and is not tried again. The search ends after `patience`
  rejections in a row. The report series are never used: `compare` measures the loss on them.

Savings are counted and no clock is read, so the same model, suite and budget give the same plan on any
machine (up to rounding of forecasts). Choosing by measured losses leaves some selection bias. The search
therefore compares the upper bootstrap limit with the budget and never spends apparent gains: a step may not
exceed the best loss so far by more than `max_loss`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Unpack

from tsprune.anatomy import KINDS, Kind, check_kinds
from tsprune.arguments import checked
from tsprune.choices import Objective
from tsprune.data.pocket import pocket
from tsprune.data.split import CALIBRATION_FRACTION, split
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.evaluation import METRICS
from tsprune.models.forecaster import Forecaster
from tsprune.progress import Progress, showing
from tsprune.pruning.losses import CalibrationLosses, RemovalStep
from tsprune.pruning.plan import Plan
from tsprune.pruning.removal_order import HISTORIES, HISTORY, GreedyRemoval, OutputChange
from tsprune.pruning.savings import joined, measure_savings
from tsprune.run_options import Options, RunOptions

CONFIDENCE = 0.8
PLAN_SEARCH = "plan search"  # how the plans were chosen that record a path of losses
_PATIENCE = 8


@checked
def plan(
    model: Forecaster,
    suite: Suite | None = None,
    *,
    max_loss: float | None = None,
    saving: float | None = None,
    objective: Objective = "latency",
    metric: str = "MASE",
    kinds: Sequence[Kind] = KINDS,
    calibration: float = CALIBRATION_FRACTION,
    confidence: float = CONFIDENCE,
    patience: int = _PATIENCE,
    histories: int = HISTORIES,
    history: int = HISTORY,
    **options: Unpack[Options],
) -> Plan:
    """Which components to remove from `model` for a loss of at most `max_loss`, or to save `saving`.

    suite : series for `max_loss`; None takes the embedded pocket suite. `saving` needs none
    max_loss : relative change of the metric's geometric mean over configurations; 0.01 is 1 %
    saving : share of the objective to save, 0.3 is 30 %; the plan saves that or a little more
    objective : "latency" (estimated, see `tsprune.cost.flops`), "flops" or "parameters"
    metric : a name in `METRICS`, such as "MASE" or "CRPS", for `max_loss`
    kinds : kinds of component that may be removed
    calibration : share of the series that the search may use (`tsprune.data.split`)
    confidence : probability that the loss on such configurations (series, of a single configuration) is
        within the budget; 0.5 compares the mean
    patience : rejections in a row after which the search ends
    histories, history : number of synthetic histories, and steps of the longest
    options : keywords of `tsprune.run_options.RunOptions`; `seed` is of the split, the histories and the
        bootstrap

    A plan for a loss may be empty. The plan's provenance records how it was found, and the loss on the
    calibration series: an optimistic figure, as the plan was chosen on them.

    Raises TspruneError unless exactly one of `max_loss` and `saving` is given, for values out of range,
    unknown names, a suite without calibration windows, or a saving that cannot be reached.

    >>> import tsprune
    >>> model = tsprune.load("bundled:timesfm")
    >>> tsprune.plan(model, saving=0.1, objective="parameters", kinds=["mlp"], histories=8)
    Plan(bundled:timesfm, 3 components: 3 mlps, saves 11.1 % of parameters)
    """
    chosen = RunOptions(**options)
    if (max_loss is None) == (saving is None):
        raise TspruneError("give one of max_loss and saving, e.g. max_loss=0.01 or saving=0.3")
    check_kinds(kinds)
    if not kinds:
        raise TspruneError(f"kinds is empty; some of: {', '.join(KINDS)}")
    METRICS.named(metric)

    def greedy(progress: Progress, wanted: float = math.inf) -> GreedyRemoval:
        savings = measure_savings(model, objective, progress)
        change = OutputChange(model, histories, history, chosen.seed, chosen.memory)
        return GreedyRemoval(model, savings, kinds, change, wanted, progress)

    with showing(chosen.progress) as progress:
        if saving is not None:
            made = {"count": histories, "history": history, "seed": chosen.seed}
            return _plan_for_saving(model, greedy(progress, saving), saving, objective, made, progress)
        whole = pocket() if suite is None else suite
        part, _ = split(whole, fraction=calibration, seed=chosen.seed)
        losses = CalibrationLosses(part, metric, confidence, chosen.seed, chosen.batch_size)
        losses.require_units()
        assert max_loss is not None
        reached = _remove_for_loss(greedy(progress), losses, max_loss, patience, progress)
    return Plan.of(
        model,
        reached.components,
        chosen=PLAN_SEARCH,
        objective=objective,
        metric=metric,
        max_loss=max_loss,
        confidence=confidence,
        calibration={
            "suite": whole.name,
            "fraction": calibration,
            "seed": chosen.seed,
            "fingerprint": part.fingerprint,
            "windows": len(part),
        },
        loss_on_calibration=reached.loss,
        limit_of_loss=reached.limit,
        expected_saving=reached.saved,
        path=_account(reached),
    )


def _plan_for_saving(
    model: Forecaster,
    removal: GreedyRemoval,
    saving: float,
    objective: Objective,
    histories: dict[str, int],
    progress: Progress,
) -> Plan:
    path: list[dict[str, object]] = []
    while removal.saved < saving - 1e-9:
        component = removal.next()
        if component is None:
            raise TspruneError(
                f"at most {removal.saved:.1%} of the {objective} of {model.name} can be saved; ask for less"
            )
        removal.remove(component)
        path.append({"added": [component.address], "saving": removal.saved, "distance": removal.distance})
        progress("removing", round(1000 * min(1.0, removal.saved / saving)), 1000)
    return Plan.of(
        model,
        removal.removed,
        chosen="output change on synthetic histories",
        objective=objective,
        saving=saving,
        expected_saving=removal.saved,
        histories=histories,
        path=path,
    )


def _remove_for_loss(
    removal: GreedyRemoval, losses: CalibrationLosses, max_loss: float, patience: int, progress: Progress
) -> RemovalStep:
    clean, _ = losses.scored(removal.current, [])
    total = len(removal.current.anatomy.components())
    reached, rejected, tried = RemovalStep(), 0, 0
    while rejected < patience and (component := removal.next()) is not None:
        _, (after,) = losses.scored(removal.current, [(component,)])
        components = joined(removal.removed, component)
        saved = removal.saved + removal.saving(component)
        step = reached.then(components, saved, losses.change(clean, after))
        if step.fits(max_loss):
            reached, rejected = step, 0
            removal.remove(component)
        else:
            rejected += 1
        tried += 1
        progress("searching", tried, total)
    return reached


def _account(reached: RemovalStep) -> list[dict[str, object]]:
    """The components that each step of a search path added, and its measured loss."""
    steps, before = [], RemovalStep()
    for step in reached.path():
        added = [c.address for c in step.components if c not in before.components]
        steps.append({"added": added, "saving": step.saved, "loss": step.loss, "limit": step.limit})
        before = step
    return steps
