"""Accuracy against time: the points of a plan search, and of removing whole layers.

Both sets of points are chosen on the calibration series. Their loss is measured on the report series, and
their latency in turns with the original's. The curve shows whether a faster plan existed at the same loss
and, if nothing could be removed, why.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
import pandas as pd

from tsprune.anatomy import Component
from tsprune.arguments import checked
from tsprune.cost.latency import compare_latency
from tsprune.data.split import split
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.models.forecaster import Forecaster
from tsprune.progress import showing
from tsprune.pruning.beam import beam, undominated
from tsprune.pruning.evidence import compare
from tsprune.pruning.losses import MEAN_CONFIDENCE, CalibrationLosses, RemovalStep
from tsprune.pruning.plan import Plan
from tsprune.pruning.savings import BATCH, CONTEXT, HORIZON, joined, measure_savings
from tsprune.pruning.search import PLAN_SEARCH
from tsprune.pruning.surgery import prune
from tsprune.run_options import Options, RunOptions

_CEILING = 0.25  # loss on the calibration series beyond which no more layers are removed
CURVE_POINTS, CURVE_ROUNDS = 6, 10
_WIDTH, _TRIES = 2, 6  # of the beam search for layers


@checked
def tradeoff(
    model: Forecaster,
    plan: Plan,
    suite: Suite,
    *,
    points: int = CURVE_POINTS,
    rounds: int = CURVE_ROUNDS,
    **options: Unpack[Options],
) -> pd.DataFrame:
    """Loss and latency of points on the search path of a plan, and of sets of whole layers.

    plan : a plan that `tsprune.plan` found for `model` and a `max_loss` on `suite`
    points : most rows of each way, evenly spread, the last point included
    rounds : timed forecasts of each point and of the original, in turns
    options : keywords of `tsprune.run_options.RunOptions`

    Columns: way ("search" or "whole layers"), components (number removed), what (their addresses),
    parameters, flops (shares of the original's), expected_saving, calibration_loss, mase_change,
    mase_low, mase_high, crps_change, crps_low, crps_high (on the report series, 95 % intervals), ms,
    time_ratio, time_ratio_low, time_ratio_high (of a forecast of 64 windows, to the original's time; below 1
    is faster) and speedup_per_flops (measured speed-up / speed-up by FLOPs).

    Raises TspruneError for a plan without a search path, or one found on other series.
    """
    chosen = RunOptions(**options)
    how = plan.provenance
    if "path" not in how or how.get("chosen") != PLAN_SEARCH:
        raise TspruneError("this plan records no search path; create one with --max-loss (tsprune.plan)")
    stated = how["calibration"]
    calibration, report = split(suite, fraction=stated["fraction"], seed=stated["seed"])
    if calibration.fingerprint != stated["fingerprint"]:
        raise TspruneError(f"the plan was found on other series than those of {suite.name}")
    savings = measure_savings(model, how["objective"])
    with showing(chosen.progress) as progress:
        losses = CalibrationLosses(
            calibration, how["metric"], MEAN_CONFIDENCE, stated["seed"], chosen.batch_size, progress
        )
        layers = beam(model, losses, savings, _CEILING, kinds=("layer",), width=_WIDTH, tries=_TRIES)
    within = [step for step in layers if np.isfinite(step.loss)]
    best = [step for step in undominated([RemovalStep(), *within]) if step.components]
    ways = {"search": search_path(plan), "whole layers": best}
    rows = [
        {"way": name, **_point(model, step, report, chosen.batch_size, rounds)}
        for name, steps in ways.items()
        for step in _thinned(steps, points)
    ]
    return pd.DataFrame(rows)


def search_path(plan: Plan) -> list[RemovalStep]:
    """The steps of the search that found a plan."""
    step = RemovalStep()
    for stated in plan.provenance["path"]:
        components = step.components
        for address in stated["added"]:
            components = joined(components, Component.parse(address))
        step = RemovalStep(components, stated["saving"], stated["loss"], stated["limit"], before=step)
    return step.path()


def _thinned(steps: Sequence[RemovalStep], count: int) -> list[RemovalStep]:
    """At most `count` of the steps, evenly spread, the last one included."""
    if len(steps) <= count:
        return list(steps)
    return [steps[-(-len(steps) * (place + 1) // count) - 1] for place in range(count)]


def _point(
    model: Forecaster, step: RemovalStep, report: Suite, batch_size: int, rounds: int
) -> dict[str, Any]:
    smaller = prune(model, step.components)
    change = compare(model, smaller, report, batch_size=batch_size).change
    context = min(CONTEXT, model.context_length)
    timed = compare_latency(model, smaller, batches=(BATCH,), context=context, horizon=HORIZON, rounds=rounds)
    before, after = timed.to_dict("records")
    flops = after["gflops"] / before["gflops"]
    costs = {
        f"{metric.lower()}_{name}": value
        for metric, found in change.items()
        for name, value in (("change", found.value), ("low", found.low), ("high", found.high))
    }
    return {
        "components": len(step.components),
        "what": " ".join(c.address for c in step.components),
        "parameters": after["parameters"] / before["parameters"],
        "flops": flops,
        "expected_saving": step.saved,
        "calibration_loss": step.loss,
        **costs,
        **{name: after[name] for name in ("ms", "time_ratio", "time_ratio_low", "time_ratio_high")},
        "speedup_per_flops": flops / after["time_ratio"],
    }
