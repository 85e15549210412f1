"""The removals of a study: growing sets of heads and MLPs, and the loss without each.

1. The price of a head or MLP is the change of the forecast when it alone is ablated (Spearman distance, mean
   over calibration windows), divided by the share of the estimated time that it saves. A rank distance is
   never negative, so that no component looks useful to remove because of noise.
2. Components are taken in the order of their prices, if they can be removed together. The first that save
   each of `REMOVAL_SAVINGS` are ablated together.
3. The plan is the largest set whose loss has an upper limit within one of `ANSWER_LOSSES` on the calibration
   series; the smallest of these losses that allows any removal decides. The loss that is reported was
   measured on the other series.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tsprune.anatomy import Component
from tsprune.choices import Objective
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.hooks.ablation import Ablation
from tsprune.models.forecaster import Forecaster
from tsprune.models.removal import components_left
from tsprune.pruning.plan import Plan
from tsprune.pruning.savings import leaves_every_stack, measure_savings
from tsprune.pruning.search import CONFIDENCE
from tsprune.studies.study_result import REMOVALS
from tsprune.studies.study_tables import Effects
from tsprune.sweeps.sweep_result import Masks, SweepResult

REMOVAL_SAVINGS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
ANSWER_LOSSES = (0.01, 0.02, 0.05)
METRIC = "MASE"
_OBJECTIVE: Objective = "latency"


@dataclasses.dataclass(frozen=True)
class Removal:
    """Heads and MLPs that are removed together.

    saving : share of the estimated time of a forecast
    """

    components: tuple[Component, ...]
    saving: float

    @property
    def ablation(self) -> Ablation:
        """Their ablation, which forecasts as the model without them."""
        return Ablation(self.components)


def removals(
    model: Forecaster, singles: Mapping[Component, Ablation], result: SweepResult, calibration: Masks
) -> list[Removal]:
    """The removals to measure, from the smallest on; empty if no component was measured or can go.

    singles : heads and MLPs, each with its ablation
    result : of a sweep with these ablations
    """
    distances = {one: result.change(ablation, calibration).spearman for one, ablation in singles.items()}
    known = {one: distance for one, distance in distances.items() if np.isfinite(distance)}
    if not known:
        return []
    savings = measure_savings(model, _OBJECTIVE)
    worth = {one: saved for one in known if (saved := savings.of(one)) > 0}
    found: list[Removal] = []
    chosen: tuple[Component, ...] = ()
    saved = 0.0
    for component in sorted(worth, key=lambda one: known[one] / worth[one]):
        if not _removable(model, (*chosen, component)):
            continue
        chosen, saved = (*chosen, component), saved + worth[component]
        if len(found) < len(REMOVAL_SAVINGS) and saved >= REMOVAL_SAVINGS[len(found)] - 1e-9:
            found.append(Removal(chosen, saved))
    return found


def _removable(model: Forecaster, components: Sequence[Component]) -> bool:
    try:
        components_left(model, components)
    except TspruneError:
        return False
    return leaves_every_stack(components, model.anatomy)


def removals_table(
    model: Forecaster,
    found: Sequence[Removal],
    result: SweepResult,
    suite: Suite,
    calibration: Masks,
    seed: int,
) -> pd.DataFrame:
    """The table `REMOVALS`; `result` : of a sweep with the ablations of `found`."""
    ablations = [one.ablation for one in found]
    chosen_on = Effects(result, suite, ablations, masks=calibration, seed=seed)
    losses = chosen_on.of(ablations, METRIC).estimates(level=2 * CONFIDENCE - 1, seed=seed)
    report = {name: ~mask for name, mask in calibration.items()}
    changes = Effects(result, suite, ablations, masks=report, seed=seed).columns(ablations)
    heads = [sum(component.head is not None for component in one.components) for one in found]
    described = pd.DataFrame(
        {
            "saving": [one.saving for one in found],
            "heads": heads,
            "heads_total": len(model.anatomy.components("head")),
            "mlps": [len(one.components) - count for one, count in zip(found, heads, strict=True)],
            "mlps_total": len(model.anatomy.components("mlp")),
            "calibration_loss": losses.value,
            "calibration_limit": losses.high,
            "components": [" ".join(part.address for part in one.components) for one in found],
        }
    )
    table = pd.concat([described, changes], axis=1)
    table["chosen"] = np.arange(len(table)) == largest_within(table["calibration_limit"].tolist())
    return REMOVALS.checked(table)


def largest_within(limits: Sequence[float]) -> int | None:
    """The place of the largest removal within the least of `ANSWER_LOSSES` that holds any, or None.

    limits : upper limits of the losses of growing removals; NaN is within nothing

    >>> largest_within([0.001, 0.008, 0.03]), largest_within([0.06]), largest_within([0.04, 0.015])
    (1, None, 1)
    """
    for loss in ANSWER_LOSSES:
        within = [place for place, limit in enumerate(limits) if limit <= loss]
        if within:
            return within[-1]
    return None


def plan_of(model: Forecaster, table: pd.DataFrame) -> Plan | None:
    """The chosen removal of a table `REMOVALS` as a plan; None if none is chosen."""
    rows = table[table["chosen"]]
    return None if rows.empty else _as_plan(model, rows.iloc[0])


def smallest_plan(model: Forecaster, table: pd.DataFrame) -> Plan | None:
    """The first removal of a table `REMOVALS` as a plan, whatever it costs; None if there is none."""
    return None if table.empty else _as_plan(model, table.iloc[0])


def _as_plan(model: Forecaster, row: pd.Series[Any]) -> Plan:
    return Plan.of(
        model,
        str(row["components"]).split(),
        chosen="study",
        objective=_OBJECTIVE,
        metric=METRIC,
        confidence=CONFIDENCE,
        loss_on_calibration=float(row["calibration_loss"]),
        limit_of_loss=float(row["calibration_limit"]),
        expected_saving=float(row["saving"]),
    )
