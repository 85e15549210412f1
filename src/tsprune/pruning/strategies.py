"""Strategies that choose components from a ranking: within sublayers, in the middle layers, or globally.

Rankings are tables of `tsprune.rank`. Heads are ordered within attention sublayers; MLPs, sublayers and
layers within stacks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from tsprune.anatomy import Anatomy, Component
from tsprune.errors import TspruneError
from tsprune.scores import ORDERS, Order, peer_columns

Scope = Literal["within-layers", "middle-layers", "global"]
SCOPES: tuple[Scope, ...] = ("within-layers", "middle-layers", "global")

SUBLAYER = ["stack", "layer", "attention"]


def choose(
    anatomy: Anatomy, ranking: pd.DataFrame, share: float, *, scope: Scope, order: Order
) -> tuple[Component, ...]:
    """A share of the components of a ranking, by one strategy.

    share : in [0, 1], of the components in scope; the count is rounded
    scope : "within-layers" chooses as evenly from every sublayer as possible, "middle-layers" does so in
        the middle layers only (the paper's strategy), "global" takes the extreme scores wherever they are
    order : the end to begin with; `tsprune.scores.redundant_first` is the redundant end of a score

    Raises TspruneError for an unknown scope or order, or a share outside [0, 1].
    """
    if scope not in SCOPES or order not in ORDERS:
        raise TspruneError(
            f"unknown strategy {scope!r}, {order!r}; scopes: {', '.join(SCOPES)}; orders: {', '.join(ORDERS)}"
        )
    if not 0 <= share <= 1:
        raise TspruneError(f"share must lie between 0 and 1, not {share}")
    pool = middle_heads(anatomy, ranking) if scope == "middle-layers" else ranking
    count = round(share * len(pool))
    return remove_global(pool, count, order) if scope == "global" else remove_ranked(pool, count, order)


def ordered(ranking: pd.DataFrame, order: Order) -> pd.DataFrame:
    """A ranking with the column `turn`: 0 for the first component of its group to remove, then 1, ...

    Ties keep the order of execution; components without a score come last in either order.
    """
    frame = _sorted(ranking, order)
    return frame.assign(turn=frame.groupby(peer_columns(frame)).cumcount()).sort_index()


def _sorted(ranking: pd.DataFrame, order: Order) -> pd.DataFrame:
    return ranking.sort_values("score", ascending=order == "low-to-high", kind="stable", na_position="last")


def middle_heads(anatomy: Anatomy, ranking: pd.DataFrame) -> pd.DataFrame:
    """The rows of a ranking whose layer is a middle layer of its stack."""
    middle = {stack.name: set(anatomy.middle_layers(stack.name)) for stack in anatomy.stacks}
    keep = [layer in middle[stack] for stack, layer in zip(ranking["stack"], ranking["layer"], strict=True)]
    return ranking[keep]


def remove_ranked(heads: pd.DataFrame, count: int, order: Order) -> tuple[Component, ...]:
    """`count` of `heads`, as evenly over the sublayers as possible, ranked within each.

    The r-th head of every sublayer comes before the (r+1)-th of any; among heads of one turn the score
    decides.
    """
    frame = ordered(heads, order)
    tie_break = frame["score"] if order == "low-to-high" else -frame["score"]
    chosen = frame.assign(tie_break=tie_break).sort_values(["turn", "tie_break"], kind="stable").head(count)
    return as_components(chosen["address"])


def remove_global(ranking: pd.DataFrame, count: int, order: Order) -> tuple[Component, ...]:
    """The first `count` of a ranking by score alone.

    Ties keep the order of execution; components without a score come last. If the scale of a score differs
    between layers or kinds of sublayer, most come from a few of them.
    """
    return as_components(_sorted(ranking, order)["address"].head(count))


def remove_random(
    heads: pd.DataFrame, like: Sequence[Component], rng: np.random.Generator
) -> tuple[Component, ...]:
    """Random heads, as many from each sublayer as in `like`."""
    chosen: list[str] = []
    columns = peer_columns(heads)
    counts = Counter(tuple(getattr(c, column) for column in columns) for c in like)
    for peers, group in heads.groupby(columns, sort=False):
        chosen += list(rng.choice(group["address"].to_numpy(), counts[peers], replace=False))
    return as_components(chosen)


def random_draws(
    heads: pd.DataFrame, like: Sequence[Component], draws: int, seed: int = 0
) -> list[tuple[Component, ...]]:
    """The null of a strategy: `draws` random choices with the counts per sublayer of `like`.

    A draw depends on `seed` and its number alone, so more draws extend fewer.
    """
    return [remove_random(heads, like, np.random.default_rng([seed, draw])) for draw in range(draws)]


def as_components(addresses: Sequence[str] | pd.Series) -> tuple[Component, ...]:
    """Components of addresses, in canonical order (so that equal sets are equal ablations)."""
    found = [Component.parse(address) for address in addresses]
    return tuple(sorted(found, key=lambda c: (c.stack, c.layer, c.attention or "", c.head or 0)))
