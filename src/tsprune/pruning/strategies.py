"""Which heads go: within each sublayer, from one end of a ranking or at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from tsprune.anatomy import Anatomy, Component
from tsprune.scores import ORDERS, Order

SUBLAYER = ["stack", "layer", "attention"]


def ordered(ranking: pd.DataFrame, order: Order) -> pd.DataFrame:
    """Heads of a ranking (see `tsprune.rank`) within each sublayer in order of removal.

    Adds the column `turn`, 0 for the first head of its sublayer to go. Ties keep the head order;
    heads without a score go last, whichever the order.
    """
    frame = ranking.sort_values("score", ascending=order == "low-to-high", kind="stable", na_position="last")
    return frame.assign(turn=frame.groupby(SUBLAYER).cumcount()).sort_index()


def middle_heads(anatomy: Anatomy, ranking: pd.DataFrame) -> pd.DataFrame:
    """The rows of a ranking whose layer is a middle layer of its stack."""
    middle = {stack.name: set(anatomy.middle_layers(stack.name)) for stack in anatomy.stacks}
    keep = [layer in middle[stack] for stack, layer in zip(ranking["stack"], ranking["layer"], strict=True)]
    return ranking[keep]


def remove_ranked(heads: pd.DataFrame, count: int, order: Order) -> tuple[Component, ...]:
    """`count` of `heads`, as evenly over the sublayers as possible, ranked within each.

    The r-th head of every sublayer goes before the (r+1)-th of any; which sublayers give one more
    head when the count does not come out even is decided by the score.
    """
    frame = ordered(heads, order)
    tie_break = frame["score"] if order == "low-to-high" else -frame["score"]
    chosen = frame.assign(tie_break=tie_break).sort_values(["turn", "tie_break"], kind="stable").head(count)
    return as_components(chosen["address"])


def remove_random(
    heads: pd.DataFrame, like: Sequence[Component], rng: np.random.Generator
) -> tuple[Component, ...]:
    """Random heads, as many from each sublayer as `like` takes there."""
    chosen: list[str] = []
    counts = pd.Series([(c.stack, c.layer, c.attention) for c in like]).value_counts()
    for sublayer, group in heads.groupby(SUBLAYER, sort=False):
        count = int(counts.get(sublayer, 0))
        chosen += list(rng.choice(group["address"].to_numpy(), count, replace=False))
    return as_components(chosen)


def as_components(addresses: Sequence[str] | pd.Series) -> tuple[Component, ...]:
    """Components of addresses, in canonical order (so that equal sets are equal ablations)."""
    found = [Component.parse(address) for address in addresses]
    return tuple(sorted(found, key=lambda c: (c.stack, c.layer, c.attention or "", c.head or 0)))
