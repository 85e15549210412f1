"""The plan: known beforehand, one thing at a time, and what is finished is what is planned."""

from __future__ import annotations

import dataclasses
import json

import pytest

from pretrain.families.supervision import Supervision
from pretrain.laboratory import results
from pretrain.laboratory.objectives import is_implemented, objective
from pretrain.laboratory.plan import BASE, CONDITIONS, FURTHER_SEEDS, SEEDS, Condition, plan
from pretrain.laboratory.running import chosen
from tsprune.errors import TspruneError

LABELS = {"name", "question", "differs"}


def condition(name: str) -> Condition:
    return next(one for one in CONDITIONS if one.name == name)


def differing(one: Condition, other: Condition) -> set[str]:
    a, b = dataclasses.asdict(one), dataclasses.asdict(other)
    return {field for field in a if a[field] != b[field]} - LABELS


def test_every_condition_is_trained_from_every_seed_once() -> None:
    names = [run.name for run in plan()]
    assert len(set(names)) == len(names)
    seeds = {one.name: (*SEEDS, *FURTHER_SEEDS.get(one.name, ())) for one in CONDITIONS}
    assert sorted(names) == sorted(f"{name}-s{seed}" for name, found in seeds.items() for seed in found)
    assert len(SEEDS) >= 3


def test_what_matters_most_comes_first() -> None:
    names = [run.name for run in plan()]
    assert set(names[:3]) == {"depth-4-s0", "depth-8-s0", "depth-16-s0"}
    assert {run.seed for run in plan()[:15]} == {0}
    assert all(names.index(f"depth-32-s{seed}") > len(names) / 2 for seed in SEEDS)


@pytest.mark.parametrize("name", [one.name for one in CONDITIONS if one.name != BASE])
def test_a_condition_differs_from_the_base_in_one_thing(name: str) -> None:
    # as many parameters in another shape; the encoder-decoder with as many layers in each stack
    in_two = {"wide": {"layers", "width"}, "deep": {"layers", "width"}, "bolt-16": {"architecture", "layers"}}
    differs = differing(condition(name), condition(BASE))
    assert differs == in_two[name] if name in in_two else len(differs) == 1


@pytest.mark.parametrize("name", ["wide", "deep"])
def test_deep_and_wide_have_as_many_parameters(name: str) -> None:
    def in_blocks(one: Condition) -> int:
        parameters = objective(one).build().named_parameters()
        return sum(p.numel() for name, p in parameters if name.startswith("stacked_xf") and p.ndim == 2)

    assert in_blocks(condition(name)) == in_blocks(condition(BASE))


def test_results_are_those_of_the_plan() -> None:
    """A planned condition whose results are there must not change under its name."""
    planned = {run.name: run for run in plan()}
    for path in results.FOLDER.glob("*.json"):
        known = json.loads(path.read_text())
        fields = json.loads(json.dumps(dataclasses.asdict(planned[known["run"]].condition)))
        for label in LABELS:
            fields.pop(label)
        assert {name: known[name] for name in fields} == fields, path.name
        assert known["precision"] == "float32"


def test_what_is_not_implemented_is_refused() -> None:
    never = Condition("never", "null", "", architecture="chronos2", supervision=Supervision("student-t"))
    assert not is_implemented(never)
    with pytest.raises(TspruneError, match="never: training chronos2 with another supervision"):
        objective(never)
    assert all(is_implemented(one) for one in CONDITIONS)


def test_runs_are_chosen_by_pattern_in_the_order_of_the_plan() -> None:
    assert [run.name for run in chosen(plan(), ["depth-4-s?", "depth-16-s0"])][:2] == [
        "depth-16-s0",
        "depth-4-s0",
    ]
    assert chosen(plan(), []) == list(plan())
    with pytest.raises(TspruneError, match="no run 'depth-5' in the plan"):
        chosen(plan(), ["depth-5"])
