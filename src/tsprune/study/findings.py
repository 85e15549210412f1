"""What the claims about one model follow from: taken from its sweep, and from a second, short one."""

from __future__ import annotations

import pandas as pd

from tsprune.ablation import Ablation
from tsprune.anatomy import Component
from tsprune.errors import TspruneError
from tsprune.evaluation.intervals import Change, simultaneous
from tsprune.models.forecaster import Forecaster
from tsprune.pruning.strategies import middle_heads, remove_ranked
from tsprune.study.claims import (
    HEADLINE_SHARE,
    PRUNED_PERCENT,
    Headline,
    MLPMedian,
    Pruned,
    end_layers,
)
from tsprune.study.effects import METRICS, Effects
from tsprune.study.experiments import LayerUnit, Plan
from tsprune.study.result import ModelStudy
from tsprune.study.settings import Settings
from tsprune.study.tables import strategies_at
from tsprune.sweep.engine import run
from tsprune.sweep.result import SweepResult
from tsprune.sweep.store import Store


def require_all(result: SweepResult) -> None:
    """Raises TspruneError if a cell of a sweep failed: the tables need them all."""
    for (ablation, configuration), error in result.failed.items():
        what = " ".join(component.address for component in ablation.components) or "no ablation"
        raise TspruneError(
            f"{len(result.failed)} cells of the study failed, the first on {configuration} ({what}): "
            f"{error}; what is finished stays in the store"
        )


def ends_found(effects: Effects, wanted: Plan, layers: pd.DataFrame) -> dict[str, Change]:
    """First and last layers, with intervals that hold together."""
    ends = end_layers(layers)
    ablations = [wanted.layers[LayerUnit(row.stack, row.layer, "both")] for row in ends.itertuples()]
    changes = effects.of(ablations, "MASE")
    level = simultaneous(len(ablations))
    return {address: changes.change(column, level=level) for column, address in enumerate(ends["address"])}


def pruned_found(effects: Effects, wanted: Plan, seed: int) -> Pruned | None:
    found = strategies_at(effects, wanted, PRUNED_PERCENT, "MASE")
    if not found:
        return None
    high, low, random = found["high-to-low"], found["low-to-high"], found["random"]
    mean = random.mean_of_drawn(seed)
    level = simultaneous(2)
    return Pruned(
        high=high.change(level=level),
        random=mean.change(level=level),
        above_random=high.minus(mean).change(),
        above_low=high.minus(low).change(),
        low=float(low.values[0]),
        drawn=random.values.tolist(),
    )


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
        Component(key.stack, key.layer, mlp=True): result.change(ablation, settings.calibration).mase
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
        prepared=settings.prepared,
        store=store,
        memory=settings.memory,
    )
    require_all(second)
    report = {name: ~mask for name, mask in settings.calibration.items()}
    effects = Effects(second, settings.suite, [ablation], masks=report, seed=settings.seed)
    mase, crps = (effects.of([ablation], metric).change() for metric in METRICS)
    return Headline(count, len(ranking), addresses, mase, crps)
