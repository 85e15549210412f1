"""What the claims about one model follow from: taken from its sweep, and from a second, short one."""

from __future__ import annotations

import pandas as pd

from tsprune.anatomy import Component
from tsprune.errors import TspruneError
from tsprune.hooks.ablation import Ablation
from tsprune.models.forecaster import Forecaster
from tsprune.pruning.strategies import middle_heads, remove_ranked
from tsprune.statistics import Sample
from tsprune.studies.claims import (
    HEADLINE_SHARE,
    PRUNED_PERCENT,
    Headline,
    MLPMedian,
    Pruned,
    end_layers,
)
from tsprune.studies.experiments import LayerUnit, Plan
from tsprune.studies.settings import Settings
from tsprune.studies.study_effects import Effects
from tsprune.studies.study_result import ModelStudy
from tsprune.studies.study_tables import strategies_at
from tsprune.sweeps.engine import run
from tsprune.sweeps.store import Store
from tsprune.sweeps.sweep_result import SweepResult


def require_all(result: SweepResult) -> None:
    """Raises TspruneError if a cell of a sweep failed: the tables need them all."""
    for (ablation, configuration), error in result.failed.items():
        what = " ".join(component.address for component in ablation.components) or "no ablation"
        raise TspruneError(
            f"{len(result.failed)} cells of the study failed, the first on {configuration} ({what}): "
            f"{error}; what is finished stays in the store"
        )


def ends_found(effects: Effects, wanted: Plan, layers: pd.DataFrame) -> dict[str, Sample]:
    """Changes of MASE without each first and last layer."""
    return {
        row.address: effects.of([wanted.layers[LayerUnit(row.stack, row.layer, "both")]], "MASE")
        for row in end_layers(layers).itertuples()
    }


def pruned_found(effects: Effects, wanted: Plan) -> Pruned | None:
    """Changes of MASE by strategy; None if the middle layers have too few heads."""
    found = strategies_at(effects, wanted, PRUNED_PERCENT, "MASE")
    return Pruned(found["high-to-low"], found["low-to-high"], found["random"]) if found else None


def mlp_median(one: ModelStudy, effects: Effects, wanted: Plan) -> list[MLPMedian]:
    ablations = [ablation for key, ablation in wanted.layers.items() if key.unit == "mlp"]
    if not ablations:
        return []
    return [MLPMedian(one.name, one.architecture, effects.of(ablations, "MASE").median())]


def headline_found(
    model: Forecaster,
    settings: Settings,
    store: Store | None,
    ranking: pd.DataFrame,
    wanted: Plan,
    result: SweepResult,
) -> Headline:
    """28 % of all heads and the two middle MLPs that cost least on the calibration series; a sweep."""
    pool = middle_heads(model.anatomy, ranking)
    count = round(HEADLINE_SHARE * len(ranking))
    costs = {
        Component(key.stack, key.layer, mlp=True): result.change(ablation, settings.calibration)["MASE"]
        for key, ablation in wanted.layers.items()
        if key.unit == "mlp" and key.layer in model.anatomy.middle_layers(key.stack)
    }
    mlps = tuple(sorted(costs, key=lambda component: costs[component])[:2])
    addresses = [mlp.address for mlp in mlps]
    if len(pool) < count or len(mlps) < 2:
        return Headline(count, len(ranking), addresses, None, None)
    ablation = Ablation((*remove_ranked(pool, count, "high-to-low"), *mlps))
    second = run(
        model,
        settings.suite,
        [ablation],
        batch_size=settings.batch_size,
        store=store,
        memory=settings.memory,
    )
    require_all(second)
    report = {name: ~mask for name, mask in settings.calibration.items()}
    effects = Effects(second, settings.suite, [ablation], masks=report, seed=settings.seed)
    mase, crps = (effects.of([ablation], metric) for metric in ("MASE", "CRPS"))
    return Headline(count, len(ranking), addresses, mase, crps)
