"""The ablations a study needs, known before the first forecast.

Every experiment is a mapping from what a row of its table is about to the ablation behind it, so
that all of them run in one sweep and equal ablations are forecast once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from tsprune.anatomy import Anatomy, Component
from tsprune.hooks.ablation import Ablation
from tsprune.pruning.heads_at import Prefix, prefix_ablations
from tsprune.pruning.strategies import (
    SUBLAYER,
    as_components,
    middle_heads,
    ordered,
    remove_random,
    remove_ranked,
)
from tsprune.scores import ORDERS, Order

PERCENTS = (10, 20, 30, 50)
RANDOM_SEEDS = 10

Unit = Literal["heads", "mlp", "both"]


@dataclasses.dataclass(frozen=True)
class LayerUnit:
    """One layer: its heads, its MLP, or both."""

    stack: str
    layer: int
    unit: Unit


@dataclasses.dataclass(frozen=True)
class PrunedHeads:
    """A share of the middle layers' heads, taken by one strategy."""

    percent: int
    strategy: str
    seed: int | None
    total: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """All ablations of a study of one model (the MLPs of the headline claim are chosen later)."""

    layers: Mapping[LayerUnit, Ablation]
    heads: Mapping[Component, Ablation]
    pruning: Mapping[PrunedHeads, Ablation]
    prefixes: Mapping[Prefix, Ablation]

    def ablations(self) -> list[Ablation]:
        """Every different ablation, once."""
        tables = (self.layers, self.heads, self.pruning, self.prefixes)
        return list(dict.fromkeys(ablation for table in tables for ablation in table.values()))


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
    """`PERCENTS` of the middle layers' heads, ranked from both ends and `RANDOM_SEEDS` times at random.

    The random draws take as many heads from each sublayer as the ranking does.
    """
    heads = middle_heads(anatomy, ranking)
    found: dict[PrunedHeads, Ablation] = {}
    for percent in PERCENTS:
        count = round(percent / 100 * len(heads))
        if count == 0:
            continue
        for order in ORDERS:
            chosen = remove_ranked(heads, count, order)
            found[PrunedHeads(percent, order, None, len(heads))] = Ablation(chosen)
        like = remove_ranked(heads, count, "high-to-low")
        for draw in range(RANDOM_SEEDS):
            rng = np.random.default_rng([seed, percent, draw])
            drawn = remove_random(heads, like, rng)
            found[PrunedHeads(percent, "random", draw, len(heads))] = Ablation(drawn)
    return found


def remove_like(heads: pd.DataFrame, like: Sequence[Component], order: Order) -> tuple[Component, ...]:
    """The first of every sublayer in the order of a ranking, as many as `like` takes there.

    A sublayer in which no head has a score keeps the heads that `like` has there.
    """
    chosen: list[str] = []
    taken = ordered(heads, order).sort_values("turn", kind="stable").groupby(SUBLAYER, sort=False)
    for (stack, layer, attention), group in taken:
        there = [c.address for c in like if (c.stack, c.layer, c.attention) == (stack, layer, attention)]
        known = group["score"].notna().any()
        chosen += group["address"].head(len(there)).tolist() if known else there
    return as_components(chosen)


def pruned_by_maps(
    anatomy: Anatomy, ranking: pd.DataFrame, maps: pd.DataFrame
) -> dict[PrunedHeads, Ablation]:
    """The same counts per sublayer as by `ranking`, highest first, ranked by `maps` from both ends.

    Nothing if no middle head has a score there.
    """
    heads, by_maps = middle_heads(anatomy, ranking), middle_heads(anatomy, maps)
    if by_maps["score"].isna().all():
        return {}
    found: dict[PrunedHeads, Ablation] = {}
    for percent in PERCENTS:
        count = round(percent / 100 * len(heads))
        like = remove_ranked(heads, count, "high-to-low")
        for order in ORDERS if count else ():
            key = PrunedHeads(percent, f"svd-{order}", None, len(heads))
            found[key] = Ablation(remove_like(by_maps, like, order))
    return found


def plan(anatomy: Anatomy, ranking: pd.DataFrame, seed: int, maps: pd.DataFrame | None = None) -> Plan:
    """The ablations of a study, given `tsprune.rank`'s table.

    maps : the same table by the stable rank of attention maps, if it is to be compared
    """
    pruning = pruned_heads(anatomy, ranking, seed)
    return Plan(
        layers=layer_units(anatomy),
        heads={head: Ablation((head,)) for head in anatomy.components("head")},
        pruning=pruning if maps is None else pruning | pruned_by_maps(anatomy, ranking, maps),
        prefixes=prefix_ablations(ranking),
    )
