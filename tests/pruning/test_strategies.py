"""Which heads go: counts, evenness, ties, randomness."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsprune.anatomy import Anatomy, AttentionSite, Block, Component, MLPSite, Projection, Stack
from tsprune.pruning.strategies import (
    ORDERS,
    Order,
    as_components,
    middle_heads,
    ordered,
    remove_random,
    remove_ranked,
)

some = settings(max_examples=40, deadline=None)
NAN = float("nan")


def ranking(scores: dict[str, list[float]]) -> pd.DataFrame:
    """A ranking from sublayer address -> scores of its heads."""
    rows = []
    for address, values in scores.items():
        stack, layer, attention = address.split(".")
        for head, score in enumerate(values):
            rows.append((f"{address}.head.{head}", stack, int(layer), attention, head, score))
    return pd.DataFrame(rows, columns=["address", "stack", "layer", "attention", "head", "score"])


def addresses(components: tuple[Component, ...]) -> set[str]:
    return {component.address for component in components}


def per_sublayer(components: tuple[Component, ...]) -> Counter[tuple[str, int, str | None]]:
    return Counter((c.stack, c.layer, c.attention) for c in components)


SCORES = st.lists(
    st.lists(st.sampled_from([1.0, 1.5, 2.0, 3.0, NAN]), min_size=4, max_size=4), min_size=1, max_size=5
)


def stacked(values: list[list[float]]) -> pd.DataFrame:
    return ranking({f"stack.{layer}.self": heads for layer, heads in enumerate(values)})


def test_by_hand() -> None:
    heads = ranking({"stack.0.self": [1.0, 3.0, 2.0], "stack.1.self": [9.0, 7.0, 8.0]})
    assert ordered(heads, "high-to-low")["turn"].tolist() == [2, 0, 1, 0, 2, 1]
    assert ordered(heads, "low-to-high")["turn"].tolist() == [0, 2, 1, 2, 0, 1]
    # one of each sublayer first; the odd one from the sublayer whose next head scores higher
    assert addresses(remove_ranked(heads, 3, "high-to-low")) == {
        "stack.0.self.head.1",
        "stack.1.self.head.0",
        "stack.1.self.head.2",
    }
    assert addresses(remove_ranked(heads, 3, "low-to-high")) == {
        "stack.0.self.head.0",
        "stack.1.self.head.1",
        "stack.0.self.head.2",
    }


@some
@given(SCORES, st.sampled_from(ORDERS), st.data())
def test_exact_counts_as_even_as_possible(
    values: list[list[float]], order: Order, data: st.DataObject
) -> None:
    heads = stacked(values)
    count = data.draw(st.integers(0, len(heads)))
    removed = remove_ranked(heads, count, order)
    assert len(set(removed)) == len(removed) == count
    each = [per_sublayer(removed)["stack", layer, "self"] for layer in range(len(values))]
    assert max(each) - min(each) <= 1


@some
@given(SCORES, st.sampled_from(ORDERS), st.data())
def test_within_a_sublayer_no_kept_head_precedes_a_removed_one(
    values: list[list[float]], order: Order, data: st.DataObject
) -> None:
    heads = stacked(values)
    removed = addresses(remove_ranked(heads, data.draw(st.integers(0, len(heads))), order))
    for _, group in heads.groupby("layer"):
        gone = group[group["address"].isin(removed)]["score"]
        kept = group[~group["address"].isin(removed)]["score"]
        if gone.isna().any():  # heads without a score only when nothing else is left
            assert kept.isna().all()
        if len(gone.dropna()) and len(kept.dropna()):
            if order == "high-to-low":
                assert gone.min() >= kept.max()
            else:
                assert gone.max() <= kept.min()


@some
@given(SCORES, st.sampled_from(ORDERS))
def test_growing_counts_only_add_heads(values: list[list[float]], order: Order) -> None:
    heads = stacked(values)
    prefixes = [addresses(remove_ranked(heads, count, order)) for count in range(len(heads) + 1)]
    assert all(before < after for before, after in itertools.pairwise(prefixes))


@pytest.mark.parametrize("order", ORDERS)
def test_ties_keep_the_order_of_heads(order: Order) -> None:
    heads = ranking({"stack.0.self": [2.0, 2.0, 2.0], "stack.1.self": [2.0, 2.0, 2.0]})
    assert ordered(heads, order)["turn"].tolist() == [0, 1, 2, 0, 1, 2]
    assert addresses(remove_ranked(heads, 1, order)) == {"stack.0.self.head.0"}


@pytest.mark.parametrize("order", ORDERS)
def test_heads_without_a_score_go_last(order: Order) -> None:
    heads = ranking({"stack.0.self": [NAN, 1.0, 2.0]})
    assert ordered(heads, order)["turn"].tolist()[0] == 2
    assert "stack.0.self.head.0" not in addresses(remove_ranked(heads, 2, order))


# --- middle layers -------------------------------------------------------------------------------


def anatomy(layers: dict[str, int], heads: int = 2) -> Anatomy:
    def block(path: str) -> Block:
        projection = Projection(path, heads, 1)
        site = AttentionSite("self", path, path, heads, 1, projection, projection, projection)
        return Block(path, (site,), MLPSite(path))

    stacks = (Stack(name, tuple(block(f"{name}{i}") for i in range(count))) for name, count in layers.items())
    return Anatomy(tuple(stacks), heads)


@pytest.mark.parametrize(
    ("layers", "middle"),
    [(1, []), (2, []), (3, [1]), (4, [1, 2]), (6, [2, 3, 4]), (8, [2, 3, 4, 5]), (12, list(range(3, 9)))],
)
def test_only_middle_layers(layers: int, middle: list[int]) -> None:
    heads = ranking({f"stack.{layer}.self": [1.0, 2.0] for layer in range(layers)})
    chosen = middle_heads(anatomy({"stack": layers}), heads)
    assert chosen["layer"].unique().tolist() == middle
    assert len(chosen) == 2 * len(middle)


def test_middle_layers_are_those_of_each_stack() -> None:
    names = [*(f"encoder.{i}.self" for i in range(2)), *(f"decoder.{i}.self" for i in range(4))]
    chosen = middle_heads(anatomy({"encoder": 2, "decoder": 4}), ranking({name: [1.0] for name in names}))
    assert chosen["address"].tolist() == ["decoder.1.self.head.0", "decoder.2.self.head.0"]


# --- random --------------------------------------------------------------------------------------


@some
@given(SCORES, st.integers(0, 1000), st.data())
def test_random_takes_as_many_of_each_sublayer(
    values: list[list[float]], seed: int, data: st.DataObject
) -> None:
    heads = stacked(values)
    like = remove_ranked(heads, data.draw(st.integers(0, len(heads))), "high-to-low")
    drawn = remove_random(heads, like, np.random.default_rng(seed))
    assert per_sublayer(drawn) == per_sublayer(like)
    assert len(set(drawn)) == len(drawn)
    assert addresses(drawn) <= set(heads["address"])
    assert drawn == remove_random(heads, like, np.random.default_rng(seed))


def test_random_draws_differ_and_are_uniform() -> None:
    heads = ranking({"stack.1.self": [1.0, 2.0, 3.0, 4.0], "stack.2.cross": [1.0, 2.0, 3.0, 4.0]})
    like = remove_ranked(heads, 2, "high-to-low")
    draws = [remove_random(heads, like, np.random.default_rng(seed)) for seed in range(400)]
    counts = Counter(component.address for draw in draws for component in draw)
    # each head in a quarter of 400 draws; six standard deviations are 52
    assert all(abs(counts[address] - 100) < 52 for address in heads["address"])


def test_equal_sets_are_equal_whatever_their_order() -> None:
    names = ["stack.10.self.head.2", "stack.2.self.head.10", "stack.2.self.head.9", "stack.2.cross.head.0"]
    assert as_components(names) == as_components(names[::-1])
    assert len(as_components(names)) == 4
