"""Accuracy against time: the way a plan search went, and what leaving out whole layers would have cost.

Both ways are chosen on the calibration series; what their points cost is measured on the others, and how
long their forecasts take is measured in turns with the original's. So the curve says of a plan whether
anything faster was to be had at its cost, and of a model that nothing can leave why not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from tsprune.anatomy import Component
from tsprune.arguments import checked
from tsprune.cost.latency import compare as compare_latency
from tsprune.data.split import split
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.models.forecaster import Forecaster
from tsprune.pruning.beam import beam, frontier
from tsprune.pruning.evidence import compare
from tsprune.pruning.losses import Losses, joined
from tsprune.pruning.plan import Plan
from tsprune.pruning.savings import BATCH, CONTEXT, HORIZON, measure
from tsprune.pruning.step import Step
from tsprune.pruning.surgery import prune
from tsprune.sweeps.engine import BATCH_SIZE, Progress

CEILING = 0.25  # loss on the calibration series beyond which no more layers are taken
POINTS = 6  # of a way, at most
ROUNDS = 10
WIDTH, TRIES = 2, 6  # of the search for layers


@checked
def tradeoff(
    model: Forecaster,
    plan: Plan,
    suite: Suite,
    *,
    batch_size: int = BATCH_SIZE,
    points: int = POINTS,
    rounds: int = ROUNDS,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """What points on the way to a plan cost and gain, and sets of whole layers, one row a point.

    plan : one that `tsprune.plan` found for `model` on `suite`
    points : the most of each way, evenly among those there are, the last one included
    rounds : timed forecasts of each point and of the original, in turns

    Columns: way ("search" or "whole layers"), components (how many are gone), what (their addresses),
    parameters, flops (shares of the original's), expected_saving, calibration_loss, mase_change,
    mase_low, mase_high, crps_change, crps_low, crps_high (of the series that nothing was chosen on,
    95 % intervals), ms, ratio, ratio_low, ratio_high (of the time of a forecast of 64 windows to the
    original's; below 1 is faster) and speedup_per_flops (measured speed-up / that of the FLOPs).

    Raises TspruneError for a plan that no search found.
    """
    how = plan.provenance
    if "path" not in how or how.get("chosen") != "plan search":
        raise TspruneError("the plan says no way that led to it; search for one (--max-loss, tsprune.plan)")
    stated = how["calibration"]
    calibration, report = split(suite, fraction=stated["fraction"], seed=stated["seed"])
    if calibration.fingerprint != stated["fingerprint"]:
        raise TspruneError(f"the plan was found on other series than those of {suite.name}")
    losses = Losses(calibration, how["metric"], 0.5, stated["seed"], batch_size, progress)
    savings = measure(model, how["objective"])
    layers = beam(model, losses, savings, CEILING, kinds=("layer",), width=WIDTH, tries=TRIES)
    within = [step for step in layers if np.isfinite(step.loss)]
    ways = {
        "search": way(plan),
        "whole layers": [step for step in frontier([Step(), *within]) if step.components],
    }
    rows = [
        {"way": name, **_point(model, step, report, batch_size, rounds)}
        for name, steps in ways.items()
        for step in _thinned(steps, points)
    ]
    return pd.DataFrame(rows)


def way(plan: Plan) -> list[Step]:
    """The steps that led to a plan that was searched for."""
    step = Step()
    for stated in plan.provenance["path"]:
        components = step.components
        for address in stated["added"]:
            components = joined(components, Component.parse(address))
        step = Step(components, stated["saving"], stated["loss"], stated["limit"], before=step)
    return step.path()


def _thinned(steps: Sequence[Step], count: int) -> list[Step]:
    """`count` of the steps at most, evenly, the last one included."""
    if len(steps) <= count:
        return list(steps)
    return [steps[-(-len(steps) * (place + 1) // count) - 1] for place in range(count)]


def _point(model: Forecaster, step: Step, report: Suite, batch_size: int, rounds: int) -> dict[str, Any]:
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
        **{name: after[name] for name in ("ms", "ratio", "ratio_low", "ratio_high")},
        "speedup_per_flops": flops / after["ratio"],
    }
