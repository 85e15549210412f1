"""The cost of `tsprune prune` before it begins: stage by stage, from a few timed pieces of the work."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from tsprune.anatomy import KINDS, Kind
from tsprune.choices import Objective
from tsprune.data.split import split
from tsprune.data.suite import Suite
from tsprune.hooks.ablation import Ablation
from tsprune.models.copies import model_copy
from tsprune.models.forecaster import Forecaster
from tsprune.progress import silent
from tsprune.pruning.evidence import CONTEXT, HORIZON, LATENCY_BATCHES, LATENCY_ROUNDS
from tsprune.pruning.removal_order import HISTORIES, OutputChange
from tsprune.pruning.savings import component_classes, cost_of
from tsprune.pruning.tradeoff import CURVE_POINTS, CURVE_ROUNDS
from tsprune.run_options import RunOptions
from tsprune.sweeps.cell_plan import SweepPlan, make_plan
from tsprune.sweeps.cost_estimate import StageCost, SweepRates, measured_rates, process_peak

_PRICED = 3  # components that are priced to time it
_FEW, _MANY = 16, 64  # histories of a timed pass; as few if these take longer than `_SLOW` seconds
_SLOW = 0.5
_LIMIT = 5.0  # seconds of timed forecasts of the suite
# exact prices of a search (27 to 63 with the bundled Chronos-Bolt, TimesFM and Bolt-small, however many
# components there are), an assumed share of components that are tried for a loss, exact prices per removal
_PRICED_AGAIN, _TRIED, _BETWEEN = 55, 0.3, 4
_LATENCY_CALLS = 6  # forecasts of each model and batch besides those that are timed

_Cost = tuple[int, float]  # forecasts of a batch, and seconds


def prune_cost(
    model: Forecaster,
    suite: Suite | None,
    *,
    saving: float | None = None,
    max_loss: float | None = None,
    objective: Objective = "latency",
    kinds: Sequence[Kind] = KINDS,
    curve: bool = False,
    options: RunOptions,
) -> list[StageCost]:
    """The stages of `tsprune prune` with these arguments.

    suite : series of the search and of the measurement; None: nothing is measured

    How many components a search prices and tries is not known before it; their numbers are what the bundled
    models needed. The pruned model is taken to be as slow as the original.
    """
    wanted = [c for c in model.anatomy.components() if c.kind in kinds]
    found: dict[str, _Cost] = {}
    if saving is None and max_loss is None:
        found["removing"] = 0, _seconds(lambda: model_copy(model))
    else:
        found |= _search_costs(model, len(wanted), objective, options)
    if suite is not None:
        plan = _plan(model, suite, options)
        rates = measured_rates(model, plan, plan.units(), memory=options.memory, limit=_LIMIT)
        report = suite
        if max_loss is not None:
            part, report = split(suite, seed=options.seed)
            found |= _loss_costs(model, len(wanted), part, rates, options)
        single, several = (_forecast_seconds(model, batch) for batch in LATENCY_BATCHES)
        batches = _plan(model, report, options).batches
        once = rates.forward(batches)
        rounds = 2 * (LATENCY_ROUNDS + _LATENCY_CALLS) * (single + several)
        found["measuring"] = 2 * len(batches), 2 * once + rounds
        if curve:
            each = 2 * once + 2 * (CURVE_ROUNDS + _LATENCY_CALLS) * several
            found["curve"] = 4 * CURVE_POINTS * len(batches), 2 * CURVE_POINTS * each
    weights = sum(parameter.nbytes for parameter in model.module.parameters())
    peak = process_peak(model.device) + weights
    return [StageCost(stage, count, seconds, peak) for stage, (count, seconds) in found.items()]


def _search_costs(
    model: Forecaster, count: int, objective: Objective, options: RunOptions
) -> dict[str, _Cost]:
    """The stages that find out which of `count` components to remove first."""
    classes = len(component_classes(model))
    counted = _seconds(lambda: cost_of(model_copy(model), objective))
    pricing, exact = _pricing_seconds(model, count, options)
    return {
        "counting": (0, (classes + 1) * counted),
        "pricing": (0, pricing),
        "removing": (0, min(count, _PRICED_AGAIN) * exact),
    }


def _loss_costs(
    model: Forecaster, count: int, calibration: Suite, rates: SweepRates, options: RunOptions
) -> dict[str, _Cost]:
    """The stage that measures losses on the calibration series, each with a clean pass."""
    batches = _plan(model, calibration, options).batches
    every = model.anatomy.components()
    middle = Ablation((every[len(every) // 2],))
    tried = _TRIED * count
    seconds = tried * sum(rates.seconds(batch, (middle,)) for batch in batches)
    return {"searching": (round(2 * tried * len(batches)), seconds)}


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _pricing_seconds(model: Forecaster, count: int, options: RunOptions) -> tuple[float, float]:
    """Seconds of the first prices of `count` components, and of one exact price."""
    for histories in (_FEW, _MANY):
        start = time.perf_counter()
        change = OutputChange(model, histories, seed=options.seed, memory=options.memory)
        targets = time.perf_counter() - start
        if targets > _SLOW:
            break
    every = model.anatomy.components()
    chosen = [every[place] for place in np.linspace(0, len(every) - 1, _PRICED).round().astype(int)]
    first = _seconds(lambda: change.alone(chosen, silent)) / len(chosen)
    recording, exact = (_seconds(lambda: change.without(chosen[_PRICED // 2])) for _ in range(2))
    exact += max(0.0, recording - exact) / _BETWEEN
    return HISTORIES / histories * targets + count * first, HISTORIES / histories * exact


def _plan(model: Forecaster, suite: Suite, options: RunOptions) -> SweepPlan:
    layers = [Ablation((layer,)) for layer in model.anatomy.components("layer")]
    return make_plan(model, suite, layers, batch_size=options.batch_size, memory=options.memory)


def _forecast_seconds(model: Forecaster, batch: int) -> float:
    """Seconds of a forecast as those that are timed for a model card."""
    series = np.random.default_rng(0).standard_normal((batch, CONTEXT)).cumsum(1).astype(np.float32)

    def forecast(count: int) -> float:
        return _seconds(lambda: model.forecast(list(series[:count].copy()), HORIZON))

    few = min(batch, _FEW)
    seconds = forecast(few)
    return seconds * batch / few if seconds > _SLOW else min(forecast(batch) for _ in range(2))
