"""The plan of a study: which ablations its tables need, and that equal ones are one."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.suites import tiny
from tests.toy import Toy
from tsprune.hooks.ablation import Ablation
from tsprune.models import Forecaster, load
from tsprune.scores import rank
from tsprune.studies.experiments import (
    PRUNING_PERCENTS,
    RANDOM_DRAWS,
    LayerUnit,
    layer_units,
    pruned_heads,
    study_plan,
)


@pytest.fixture(scope="module", params=["tiny-chronos-bolt", "tiny-timesfm", "bundled:chronos-bolt"])
def model(request: pytest.FixtureRequest) -> Forecaster:
    name: str = request.param
    return load(name, device="cpu") if name.startswith("bundled:") else tiny(name)


def addresses(ablation: Ablation) -> set[str]:
    return {component.address for component in ablation.components}


def test_layer_units_by_hand() -> None:
    units = layer_units(tiny("tiny-chronos-bolt").anatomy)
    assert len(units) == 3 * (2 + 3)
    heads = {f"decoder.1.{kind}.head.{head}" for kind in ("self", "cross") for head in range(3)}
    assert addresses(units[LayerUnit("decoder", 1, "heads")]) == heads
    assert addresses(units[LayerUnit("decoder", 1, "mlp")]) == {"decoder.1.mlp"}
    assert addresses(units[LayerUnit("decoder", 1, "both")]) == heads | {"decoder.1.mlp"}


def test_pruning_takes_the_share_it_says_from_the_middle(model: Forecaster) -> None:
    anatomy = model.anatomy
    middle = {
        head.address for head in anatomy.components("head") if head.layer in anatomy.middle_layers(head.stack)
    }
    pruned = pruned_heads(anatomy, rank(model), seed=0)
    for key, ablation in pruned.items():
        assert key.total == len(middle)
        assert len(addresses(ablation)) == len(ablation.components) == round(key.percent / 100 * len(middle))
        assert addresses(ablation) <= middle
    for percent in PRUNING_PERCENTS:
        strategies = Counter(key.strategy for key in pruned if key.percent == percent)
        if round(percent / 100 * len(middle)):
            assert strategies == {"high-to-low": 1, "low-to-high": 1, "random": RANDOM_DRAWS}
        else:
            assert not strategies


def test_random_draws_match_the_ranking_per_sublayer(model: Forecaster) -> None:
    pruned = pruned_heads(model.anatomy, rank(model), seed=0)

    def counts(ablation: Ablation) -> Counter[tuple[str, int, str | None]]:
        return Counter((c.stack, c.layer, c.attention) for c in ablation.components)

    ranked = {key.percent: a for key, a in pruned.items() if key.strategy == "high-to-low"}
    for key, ablation in pruned.items():
        if key.strategy == "random":
            assert counts(ablation) == counts(ranked[key.percent])


def test_random_draws_differ_between_seeds_and_are_reproducible() -> None:
    model = load("bundled:chronos-bolt", device="cpu")
    ranking = rank(model)
    first, again, other = (pruned_heads(model.anatomy, ranking, seed) for seed in (0, 0, 1))
    assert first == again
    drawn = [key for key in first if key.strategy == "random"]
    assert len({first[key] for key in drawn}) == len(drawn)
    assert all(first[key] != other[key] for key in drawn)
    assert all(first[key] == other[key] for key in first if key.strategy != "random")


def test_every_ablation_of_a_table_is_in_the_plan_once(model: Forecaster) -> None:
    wanted = study_plan(model.anatomy, rank(model), seed=0)
    every = wanted.ablations()
    assert len(set(every)) == len(every)
    # whatever order its components are in: a set of components is one ablation
    assert len({frozenset(ablation.components) for ablation in every}) == len(every)
    tables = (wanted.layers, wanted.heads, wanted.pruning, wanted.prefixes)
    assert {a for table in tables for a in table.values()} == set(every)
    assert len(wanted.heads) == len(model.anatomy.components("head"))


def test_by_attention_maps_as_many_go_from_each_sublayer() -> None:
    model = load("bundled:chronos-bolt", device="cpu")
    ranking = rank(model)
    # the decoder has no scores, the encoder those of the weights turned round
    known = ranking["stack"] == "encoder"
    maps = ranking.assign(score=(-ranking["score"]).where(known))
    wanted = study_plan(model.anatomy, ranking, 0, maps).pruning
    by_key = {(key.percent, key.strategy): set(addresses(a)) for key, a in wanted.items()}
    for percent in PRUNING_PERCENTS:
        by_rank = by_key[percent, "high-to-low"]
        assert by_key[percent, "svd-low-to-high"] == by_rank
        other = by_key[percent, "svd-high-to-low"]
        assert Counter(a.rsplit(".", 1)[0] for a in other) == Counter(a.rsplit(".", 1)[0] for a in by_rank)
        assert {a for a in other if a.startswith("decoder")} == {
            a for a in by_rank if a.startswith("decoder")
        }
        assert other != by_rank
    nothing = study_plan(model.anatomy, ranking, 0, ranking.assign(score=float("nan"))).pruning
    assert nothing == study_plan(model.anatomy, ranking, 0).pruning


def test_a_model_without_middle_layers_has_no_pruning() -> None:
    toy = Toy()
    wanted = study_plan(toy.anatomy, rank(toy), seed=0)
    assert not wanted.pruning
    # 2 layers of 3 heads: 3 units each; 6 single heads; per layer two pairs, and all three (a unit)
    assert len(wanted.ablations()) == 6 + 6 + 4
