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
from tsprune.errors import TspruneError
from tsprune.pruning.strategies import (
    SCOPES,
    as_components,
    choose,
    middle_heads,
    ordered,
    random_draws,
    remove_global,
    remove_random,
    remove_ranked,
)
from tsprune.scores import ORDERS, Order

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


# --- strategies ----------------------------------------------------------------------------------


def test_global_by_hand() -> None:
    """The middle layer has the highest scores: global takes them all from there."""
    heads = ranking({f"stack.{layer}.self": [layer % 2 * 10 + h for h in range(2)] for layer in range(3)})
    heads.loc[0, "score"] = NAN
    model = anatomy({"stack": 3})

    def chosen(scope: str, order: str, share: float) -> set[str]:
        return addresses(choose(model, heads, share, scope=scope, order=order))  # type: ignore[arg-type]

    assert chosen("global", "high-to-low", 1 / 3) == {"stack.1.self.head.0", "stack.1.self.head.1"}
    # 1 and 0 and 1 (of layers 0, 2, 2); ties keep the order of execution, NaN is last
    assert chosen("global", "low-to-high", 1 / 3) == {"stack.2.self.head.0", "stack.0.self.head.1"}
    assert chosen("within-layers", "high-to-low", 1 / 2) == {
        f"stack.{layer}.self.head.1" for layer in range(3)
    }
    assert chosen("middle-layers", "low-to-high", 1 / 2) == {"stack.1.self.head.0"}
    assert len(chosen("global", "high-to-low", 1)) == 6
    assert chosen("middle-layers", "high-to-low", 0) == set()


@some
@given(SCORES, st.sampled_from(ORDERS), st.data())
def test_global_takes_the_extremes(values: list[list[float]], order: Order, data: st.DataObject) -> None:
    heads = stacked(values)
    removed = addresses(remove_global(heads, data.draw(st.integers(0, len(heads))), order))
    gone, kept = (heads[heads["address"].isin(removed) == inside]["score"] for inside in (True, False))
    if gone.isna().any():
        assert kept.isna().all()
    if len(gone.dropna()) and len(kept.dropna()):
        sign = 1 if order == "high-to-low" else -1
        assert (sign * gone).min() >= (sign * kept).max()


def test_mlps_are_chosen_and_drawn_within_their_stack() -> None:
    mlps = pd.DataFrame(
        {
            "address": [f"{stack}.{layer}.mlp" for stack in ("encoder", "decoder") for layer in range(4)],
            "stack": ["encoder"] * 4 + ["decoder"] * 4,
            "layer": [*range(4), *range(4)],
            "attention": None,
            "head": None,
            "score": [4.0, 3.0, 2.0, 1.0, 10.0, 40.0, 30.0, 20.0],
        }
    )
    model = anatomy({"encoder": 4, "decoder": 4})
    evenly = choose(model, mlps, 1 / 2, scope="within-layers", order="high-to-low")
    assert addresses(evenly) == {"encoder.0.mlp", "encoder.1.mlp", "decoder.1.mlp", "decoder.2.mlp"}
    middle = choose(model, mlps, 1 / 2, scope="middle-layers", order="low-to-high")
    assert addresses(middle) == {"encoder.2.mlp", "decoder.2.mlp"}
    anywhere = choose(model, mlps, 1 / 2, scope="global", order="high-to-low")
    assert {c.stack for c in anywhere} == {"decoder"}
    for draw in random_draws(mlps, evenly, 5):
        assert Counter(c.stack for c in draw) == {"encoder": 2, "decoder": 2}


def test_random_draws_are_those_of_their_place() -> None:
    heads = stacked([[1.0, 2.0, 3.0, 4.0]] * 4)
    like = remove_ranked(heads, 6, "high-to-low")
    few, more = random_draws(heads, like, 3, seed=5), random_draws(heads, like, 6, seed=5)
    assert more[:3] == few
    assert len(set(more)) > 1
    assert all(per_sublayer(draw) == per_sublayer(like) for draw in more)


def test_no_such_strategy() -> None:
    heads, model = stacked([[1.0] * 4] * 3), anatomy({"stack": 3})
    with pytest.raises(TspruneError, match=", ".join(SCOPES)):
        choose(model, heads, 0.5, scope="everywhere", order="high-to-low")  # type: ignore[arg-type]
    with pytest.raises(TspruneError, match="high-to-low, low-to-high"):
        choose(model, heads, 0.5, scope="global", order="up")  # type: ignore[arg-type]
    with pytest.raises(TspruneError, match=r"between 0 and 1, not 1\.5"):
        choose(model, heads, 1.5, scope="global", order="high-to-low")


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
