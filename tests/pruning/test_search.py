"""Plan search: within its budget, blind to the other series, and it finds what is planted."""

from __future__ import annotations

import copy
import dataclasses
import functools

import numpy as np
import pytest
import torch

from tests.suites import configuration, tiny
from tsprune import Plan, prune
from tsprune.data import Suite, split
from tsprune.data.split import calibration_mask
from tsprune.errors import TspruneError
from tsprune.hooks.ablation import Ablation
from tsprune.models import Forecaster
from tsprune.pruning import search
from tsprune.sweeps import run

# few and short histories: the models are tiny
plan = functools.partial(search.plan, histories=16, history=64)

MODELS = ["tiny-chronos-bolt", "tiny-timesfm"]


def suite() -> Suite:
    return Suite(
        "search",
        (
            configuration("first/D/short", [60, 50, 64, 55, 61, 48], horizon=5),
            configuration("second/D/short", [64, 40, 52, 64], horizon=6, season=7),
        ),
    )


def loss(model: Forecaster, chosen: Plan, part: Suite) -> float:
    if not chosen.components:
        return 0.0
    ablation = Ablation(chosen.components)
    return run(model, part, [ablation]).change(ablation)["MASE"]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("budget", [0.0, 0.02, 0.5])
def test_within_the_budget_on_the_calibration_series(name: str, budget: float) -> None:
    model = tiny(name)
    chosen = plan(model, suite(), max_loss=budget, objective="parameters")
    measured = loss(model, chosen, split(suite())[0])
    assert measured <= budget + 1e-4
    assert chosen.provenance["loss_on_calibration"] == pytest.approx(measured, abs=1e-4)
    smaller = prune(model, chosen) if chosen.components else model
    saved = 1 - smaller.parameter_count / model.parameter_count
    assert chosen.provenance["expected_saving"] == pytest.approx(saved, abs=0.03)


def test_a_larger_budget_saves_more() -> None:
    model = tiny("tiny-timesfm")
    savings = [
        plan(model, suite(), max_loss=budget, objective="parameters").provenance["expected_saving"]
        for budget in (0.0, 0.1, 10.0)
    ]
    assert savings == sorted(savings)
    assert savings[0] < savings[-1]


def test_what_is_known_to_be_idle_goes() -> None:
    """An MLP and a head that write nothing cost nothing, so they go even without a budget."""
    model = copy.deepcopy(tiny("tiny-chronos-bolt"))
    mlp, head = model.anatomy.select(["encoder.1.mlp"])[0], model.anatomy.select(["encoder.0.self.head.1"])[0]
    with torch.no_grad():
        for name, parameter in model.module.get_submodule(model.anatomy.mlp(mlp).output).named_parameters():
            if name == "wo.weight":
                parameter.zero_()
        site = model.anatomy.site(head)
        output = model.module.get_submodule(site.output).get_parameter("weight")
        output[:, site.columns(1)] = 0
    chosen = plan(model, suite(), max_loss=0.0, objective="parameters", kinds=["head", "mlp"])
    assert {mlp, head} <= set(chosen.components)


def test_the_other_series_are_never_looked_at() -> None:
    def spoiled(c: object) -> object:
        report = ~calibration_mask(c, 0.5, 0)  # type: ignore[arg-type]
        targets = c.targets.copy()  # type: ignore[attr-defined]
        targets[report] = 1e6 * np.random.default_rng(0).standard_normal(targets[report].shape)
        return dataclasses.replace(c, targets=targets)  # type: ignore[type-var]

    whole = suite()
    changed = dataclasses.replace(whole, configurations=tuple(map(spoiled, whole.configurations)))
    model = tiny("tiny-timesfm")
    plans = [plan(model, s, max_loss=0.05, objective="parameters") for s in (whole, changed)]
    assert plans[0].components == plans[1].components
    assert plans[0].provenance["calibration"] == plans[1].provenance["calibration"]


def test_every_stack_keeps_a_layer() -> None:
    model = tiny("tiny-chronos-bolt")
    chosen = plan(model, suite(), max_loss=1e6, objective="parameters")
    smaller = prune(model, chosen)
    assert all(stack.blocks for stack in smaller.anatomy.stacks)
    assert np.isfinite(smaller.forecast([[1.0, 2.0, 3.0] * 10], 5).median).all()


def test_only_the_kinds_asked_for() -> None:
    chosen = plan(tiny("tiny-timesfm"), suite(), max_loss=0.5, objective="parameters", kinds=["mlp"])
    assert chosen.components
    assert {c.kind for c in chosen.components} == {"mlp"}


def test_a_plan_found_survives_its_file() -> None:
    chosen = plan(tiny("tiny-timesfm"), suite(), max_loss=0.1, objective="parameters")
    assert Plan.from_json(chosen.to_json()) == chosen


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_loss": -0.1}, "at least 0"),
        ({}, "one of max_loss and saving"),
        ({"max_loss": 0.1, "saving": 0.1}, "one of max_loss and saving"),
        ({"max_loss": 0.1, "confidence": 1.0}, "between 0.5 and 1"),
        ({"max_loss": 0.1, "patience": 0}, "patience must be at least 1"),
        ({"max_loss": float("nan")}, "at least 0"),
        ({"max_loss": 0.1, "metric": "RMSE"}, "MASE, CRPS"),
        ({"max_loss": 0.1, "kinds": ["neuron"]}, "head, mlp, attention, layer"),
        ({"max_loss": 0.1, "kinds": []}, "head, mlp, attention, layer"),
        ({"max_loss": 0.1, "objective": "beauty"}, "latency, flops, parameters"),
    ],
)
def test_unknown_names(change: dict[str, object], message: str) -> None:
    with pytest.raises(TspruneError, match=message):
        plan(tiny("tiny-timesfm"), suite(), **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", MODELS)
def test_a_plan_for_time_reads_no_clock(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny(name)
    monkeypatch.setattr("tsprune.cost.latency.in_turns", lambda *_: pytest.fail("something was timed"))
    first, second = (plan(model, suite(), max_loss=0.05, kinds=["mlp", "layer"]) for _ in range(2))
    assert first == second
    assert first.provenance["objective"] == "latency"


def test_a_single_series_has_no_interval_to_search_by() -> None:
    model = tiny("tiny-timesfm")
    single = Suite("s", (configuration("first/D/short", [60, 50, 64, 55], horizon=5, owners=[0, 0, 1, 1]),))
    with pytest.raises(TspruneError, match="single series"):  # one of the two is for the report
        plan(model, single, max_loss=0.5, objective="parameters")
    assert plan(model, single, max_loss=0.5, objective="parameters", confidence=0.5).components
