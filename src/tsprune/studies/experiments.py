"""The ablations of a study, known before the first forecast.

Each experiment maps the key of a table row to its ablation. All experiments run in one sweep, so equal
ablations are forecast once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from tsprune.anatomy import Anatomy, Component
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.hooks.ablation import Ablation
from tsprune.models.forecaster import Forecaster
from tsprune.progress import Progress, silent
from tsprune.pruning import strategies
from tsprune.pruning.heads_at import Prefix, prefix_ablations
from tsprune.run_options import RunOptions
from tsprune.scores import ORDERS, Order
from tsprune.sweeps.engine import run
from tsprune.sweeps.sweep_result import SweepResult

PRUNING_PERCENTS = (10, 20, 30, 50)
PRUNED_PERCENT = 30  # the claims are about
RANDOM_DRAWS = 10


@dataclasses.dataclass(frozen=True)
class LayerUnit:
    """One layer: its heads, its MLP, or both."""

    stack: str
    layer: int
    unit: Literal["heads", "mlp", "both"]

    @property
    def address(self) -> str:
        """Pattern of the unit's components."""
        return f"{self.stack}.{self.layer}" + {"heads": ".*.head.*", "mlp": ".mlp", "both": ""}[self.unit]


@dataclasses.dataclass(frozen=True)
class PrunedHeads:
    """A share of the middle layers' heads, chosen by one strategy."""

    percent: int
    strategy: str
    seed: int | None
    total: int


@dataclasses.dataclass(frozen=True)
class StudyPlan:
    """All ablations of a study of one model, without that of the headline claim, which is chosen later."""

    layers: Mapping[LayerUnit, Ablation]
    heads: Mapping[Component, Ablation]
    pruning: Mapping[PrunedHeads, Ablation]
    prefixes: Mapping[Prefix, Ablation]

    def ablations(self) -> list[Ablation]:
        """Every different ablation, once."""
        tables = (self.layers, self.heads, self.pruning, self.prefixes)
        return list(dict.fromkeys(ablation for table in tables for ablation in table.values()))

    @property
    def singles(self) -> dict[Component, Ablation]:
        """Every head and every MLP with the ablation of it alone."""
        return {**self.heads, **self.mlps}

    @property
    def mlps(self) -> dict[Component, Ablation]:
        """Every MLP with the ablation of it alone."""
        return {
            Component(key.stack, key.layer, mlp=True): ablation
            for key, ablation in self.layers.items()
            if key.unit == "mlp"
        }


def study_plan(
    anatomy: Anatomy, ranking: pd.DataFrame, seed: int, maps: pd.DataFrame | None = None
) -> StudyPlan:
    """The ablations of a study, given the table of `tsprune.rank`.

    maps : the same table by the stable rank of attention maps, to compare with
    """
    pruning = pruned_heads(anatomy, ranking, seed)
    return StudyPlan(
        layers=layer_units(anatomy),
        heads={head: Ablation((head,)) for head in anatomy.components("head")},
        pruning=pruning if maps is None else pruning | pruned_by_maps(anatomy, ranking, maps),
        prefixes=prefix_ablations(ranking),
    )


def layer_units(anatomy: Anatomy) -> dict[LayerUnit, Ablation]:
    """Heads, MLP and both, of every layer of every stack."""
    found: dict[LayerUnit, Ablation] = {}
    for stack in anatomy.stacks:
        for layer, block in stack.numbered():
            heads = tuple(
                Component(stack.name, layer, site.role, head)
                for site in block.attention
                for head in site.numbers
            )
            mlp = () if block.mlp is None else (Component(stack.name, layer, mlp=True),)
            if heads:
                found[LayerUnit(stack.name, layer, "heads")] = Ablation(heads)
            if mlp:
                found[LayerUnit(stack.name, layer, "mlp")] = Ablation(mlp)
            if heads or mlp:
                found[LayerUnit(stack.name, layer, "both")] = Ablation((*heads, *mlp))
    return found


def pruned_heads(anatomy: Anatomy, ranking: pd.DataFrame, seed: int) -> dict[PrunedHeads, Ablation]:
    """`PRUNING_PERCENTS` of the middle layers' heads: from both ends of the ranking, and at random.

    The random draws have as many heads of each sublayer as the ranking's choice.
    """
    heads = strategies.middle_heads(anatomy, ranking)
    found: dict[PrunedHeads, Ablation] = {}
    for percent in PRUNING_PERCENTS:
        count = round(percent / 100 * len(heads))
        if count == 0:
            continue
        for order in ORDERS:
            chosen = strategies.remove_ranked(heads, count, order)
            found[PrunedHeads(percent, order, None, len(heads))] = Ablation(chosen)
        like = strategies.remove_ranked(heads, count, "high-to-low")
        for draw in range(RANDOM_DRAWS):
            drawn = strategies.remove_random(heads, like, np.random.default_rng([seed, percent, draw]))
            found[PrunedHeads(percent, "random", draw, len(heads))] = Ablation(drawn)
    return found


def pruned_by_maps(
    anatomy: Anatomy, ranking: pd.DataFrame, maps: pd.DataFrame
) -> dict[PrunedHeads, Ablation]:
    """Heads ranked by `maps` from both ends, with the counts per sublayer of `ranking`, highest first.

    Empty if no middle head has a score in `maps`.
    """
    heads, by_maps = strategies.middle_heads(anatomy, ranking), strategies.middle_heads(anatomy, maps)
    if by_maps["score"].isna().all():
        return {}
    found: dict[PrunedHeads, Ablation] = {}
    for percent in PRUNING_PERCENTS:
        count = round(percent / 100 * len(heads))
        like = strategies.remove_ranked(heads, count, "high-to-low")
        for order in ORDERS if count else ():
            key = PrunedHeads(percent, f"svd-{order}", None, len(heads))
            found[key] = Ablation(_remove_like(by_maps, like, order))
    return found


def _remove_like(heads: pd.DataFrame, like: Sequence[Component], order: Order) -> tuple[Component, ...]:
    """The first heads of every sublayer in the order of a ranking, as many as in `like`.

    In a sublayer without scores the heads of `like` are taken.
    """
    chosen: list[str] = []
    groups = (
        strategies.ordered(heads, order)
        .sort_values("turn", kind="stable")
        .groupby(strategies.SUBLAYER, sort=False)
    )
    for sublayer, group in groups:
        there = [c.address for c in like if (c.stack, c.layer, c.attention) == sublayer]
        known = group["score"].notna().any()
        chosen += group["address"].head(len(there)).tolist() if known else there
    return strategies.as_components(chosen)


def run_completely(
    model: Forecaster,
    suite: Suite,
    ablations: Sequence[Ablation],
    options: RunOptions,
    *,
    keep: Collection[Ablation] = (),
    progress: Progress = silent,
    stage: str = "",
) -> SweepResult:
    """A sweep without failed cells, which the tables cannot do without; TspruneError if a cell fails."""
    result = run(model, suite, ablations, keep=keep, stage=stage, **options.keywords(progress=progress))
    for (ablation, configuration), error in result.failed.items():
        addresses = " ".join(component.address for component in ablation.components) or "no ablation"
        raise TspruneError(
            f"{len(result.failed)} cells of the study failed, the first on {configuration} ({addresses}): "
            f"{error}; finished cells stay in the store"
        )
    return result
