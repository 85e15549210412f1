"""Which components go: within each sublayer, over the middle layers or over all, from one end of a
ranking or at random.

Rankings are `tsprune.rank`'s. Those of heads are ordered within attention sublayers, those of MLPs,
sublayers and layers within stacks.
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

__all__ = [
    "ORDERS",
    "SCOPES",
    "SUBLAYER",
    "Order",
    "Scope",
    "as_components",
    "choose",
    "middle_heads",
    "ordered",
    "random_draws",
    "remove_global",
    "remove_random",
    "remove_ranked",
]

Scope = Literal["within-layers", "middle-layers", "global"]
SCOPES: tuple[Scope, ...] = ("within-layers", "middle-layers", "global")

SUBLAYER = ["stack", "layer", "attention"]


def choose(
    anatomy: Anatomy, ranking: pd.DataFrame, share: float, *, scope: Scope, order: Order
) -> tuple[Component, ...]:
    """A share of the components of a ranking, by one strategy.

    share : between 0 and 1, of those the scope takes from; the count is rounded
    scope : "within-layers" takes as evenly from every sublayer as possible, "middle-layers" the same
        from the middle layers only (the paper's), "global" the extreme scores wherever they are
    order : from which end; `tsprune.scores.redundant_first` says which end a score calls redundant

    Raises TspruneError for an unknown scope or order, or a share that is none.
    """
    if scope not in SCOPES or order not in ORDERS:
        raise TspruneError(
            f"no strategy {scope!r}, {order!r}; scopes: {', '.join(SCOPES)}; orders: {', '.join(ORDERS)}"
        )
    if not 0 <= share <= 1:
        raise TspruneError(f"a share lies between 0 and 1, {share} does not")
    pool = middle_heads(anatomy, ranking) if scope == "middle-layers" else ranking
    count = round(share * len(pool))
    return remove_global(pool, count, order) if scope == "global" else remove_ranked(pool, count, order)


def ordered(ranking: pd.DataFrame, order: Order) -> pd.DataFrame:
    """Heads of a ranking (see `tsprune.rank`) within each sublayer in order of removal.

    Adds the column `turn`, 0 for the first head of its sublayer to go. Ties keep the head order;
    heads without a score go last, whichever the order.
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

    The r-th head of every sublayer goes before the (r+1)-th of any; which sublayers give one more
    head when the count does not come out even is decided by the score.
    """
    frame = ordered(heads, order)
    tie_break = frame["score"] if order == "low-to-high" else -frame["score"]
    chosen = frame.assign(tie_break=tie_break).sort_values(["turn", "tie_break"], kind="stable").head(count)
    return as_components(chosen["address"])


def remove_global(ranking: pd.DataFrame, count: int, order: Order) -> tuple[Component, ...]:
    """The first `count` of a ranking by score alone, wherever they are.

    Ties keep the order of execution; what has no score goes last. A score whose scale differs between
    layers or kinds of sublayer takes mostly from some of them.
    """
    return as_components(_sorted(ranking, order)["address"].head(count))


def remove_random(
    heads: pd.DataFrame, like: Sequence[Component], rng: np.random.Generator
) -> tuple[Component, ...]:
    """Random heads, as many from each sublayer as `like` takes there."""
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

    A draw's numbers depend on `seed` and its place alone, so more draws only add to fewer.
    """
    return [remove_random(heads, like, np.random.default_rng([seed, draw])) for draw in range(draws)]


def as_components(addresses: Sequence[str] | pd.Series) -> tuple[Component, ...]:
    """Components of addresses, in canonical order (so that equal sets are equal ablations)."""
    found = [Component.parse(address) for address in addresses]
    return tuple(sorted(found, key=lambda c: (c.stack, c.layer, c.attention or "", c.head or 0)))
