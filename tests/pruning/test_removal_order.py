"""Plans for a saving: they save it, take the cheapest component first, and find a planted one."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch

from tests.suites import tiny
from tests.tiny import TINY, few_samples, uneven
from tsprune import Plan, prune
from tsprune.anatomy import Component
from tsprune.errors import TspruneError
from tsprune.hooks.ablation import Ablation, applied
from tsprune.models import Forecaster
from tsprune.models.removal import components_left
from tsprune.progress import silent
from tsprune.pruning.distillation import distance, histories, network_outputs, output_distance
from tsprune.pruning.removal_order import FIRST, OutputChange
from tsprune.pruning.savings import leaves_every_stack, measure_savings
from tsprune.pruning.search import plan as search

MODELS = ["tiny-chronos-bolt", "tiny-timesfm", "tiny-chronos-t5"]
COUNT, HISTORY = 16, 64


def chosen(model: Forecaster, saving: float, **options: object) -> Plan:
    return search(
        model,
        saving=saving,
        objective="parameters",
        histories=COUNT,
        history=HISTORY,
        **options,  # type: ignore[arg-type]
    )


def distances(model: Forecaster, groups: list[tuple[Component, ...]]) -> list[float]:
    """Of physically pruned models, on the histories that the plans above are chosen on."""
    contexts = next(histories(0, 0, COUNT, min(model.context_length, HISTORY)))
    assert len(contexts) == COUNT  # else it takes several batches
    return [distance(prune(model, group), model, contexts).item() for group in groups]


@pytest.mark.parametrize("name", MODELS)
def test_it_saves_what_was_asked_for_and_says_what_that_changes(name: str) -> None:
    model = tiny(name)
    plan = chosen(model, 0.05)
    saved = 1 - prune(model, plan).parameter_count / model.parameter_count
    assert saved >= 0.05 - 1e-3
    assert plan.provenance["expected_saving"] == pytest.approx(saved, abs=0.01)
    *_, last = plan.provenance["path"]
    assert last["distance"] == pytest.approx(distances(model, [plan.components])[0], rel=1e-3)
    assert Plan.from_json(plan.to_json()) == plan
    assert json.loads(plan.to_json())["provenance"]["saving"] == 0.05


@pytest.mark.parametrize("name", MODELS)
def test_the_first_to_go_is_the_cheapest_for_what_it_saves(name: str) -> None:
    model = tiny(name)
    savings = measure_savings(model, "parameters")
    wanted = [
        c for c in model.anatomy.components() if savings.of(c) > 0 and leaves_every_stack((c,), model.anatomy)
    ]
    costs = distances(model, [(c,) for c in wanted])
    prices = [cost / savings.of(c) for c, cost in zip(wanted, costs, strict=True)]
    first, *_ = chosen(model, max(map(savings.of, wanted))).provenance["path"]
    (place,) = (n for n, component in enumerate(wanted) if [component.address] == first["added"])
    assert prices[place] <= min(prices) * (1 + 1e-3) + 1e-9


def test_it_changes_less_than_chance() -> None:
    model = tiny("tiny-timesfm")
    heads = [c for c in model.anatomy.components() if c.kind == "head"]
    plan = chosen(model, 3 * measure_savings(model, "parameters").of(heads[0]) - 1e-6, kinds=["head"])
    assert len(plan.components) == 3
    rng = np.random.default_rng(0)
    groups = [tuple(heads[n] for n in rng.permutation(len(heads))[:3]) for _ in range(10)]
    ours, *others = distances(model, [plan.components, *groups])
    assert ours <= np.quantile(others, 0.2)


def test_what_is_known_to_be_idle_goes_first() -> None:
    model = copy.deepcopy(tiny("tiny-timesfm"))
    mlp, head = model.anatomy.select("stack.1.mlp")[0], model.anatomy.select("stack.0.self.head.1")[0]
    with torch.no_grad():
        for parameter in model.module.get_submodule(model.anatomy.mlp(mlp).output).parameters():
            parameter.zero_()
        site = model.anatomy.site(head)
        model.module.get_submodule(site.output).get_parameter("weight")[:, site.columns(1)] = 0
    savings = measure_savings(model, "parameters")
    plan = chosen(model, savings.of(mlp) + savings.of(head) - 1e-6)
    assert set(plan.components) == {mlp, head}
    # not exactly 0: a product without the head's columns may sum the others in another order
    assert max(step["distance"] for step in plan.provenance["path"]) < 1e-10


def test_what_is_saved_beyond_the_share_counts_for_nothing() -> None:
    """One head is enough, so no MLP goes in its place, however little it does for its size."""
    model = tiny("tiny-timesfm")
    savings = measure_savings(model, "parameters")
    head = model.anatomy.select("stack.0.self.head.1")[0]
    plan = chosen(model, savings.of(head))
    assert len(plan.components) == 1
    wanted = [c for c in model.anatomy.components() if savings.of(c) >= savings.of(head) - 1e-9]
    wanted = [c for c in wanted if leaves_every_stack((c,), model.anatomy)]
    costs = distances(model, [(c,) for c in wanted])
    assert costs[wanted.index(plan.components[0])] <= min(costs) * (1 + 1e-3)


def test_the_same_again_and_no_part_twice() -> None:
    model = tiny("tiny-chronos-bolt")
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    plans = [chosen(model, 0.3) for _ in range(2)]
    assert plans[0] == plans[1]
    expanded = model.anatomy.expand(plans[0].components)
    assert len(expanded) == len(set(expanded))
    added = [address for step in plans[0].provenance["path"] for address in step["added"]]
    assert len(added) == len(set(added))
    assert {c.address for c in plans[0].components} <= set(added)
    assert all(torch.equal(before[name], now) for name, now in model.module.state_dict().items())


@pytest.mark.parametrize("saving", [0.0, 1.0, -0.1, float("nan")])
def test_shares_that_cannot_be(saving: float) -> None:
    with pytest.raises(TspruneError, match="between 0 and 1"):
        chosen(tiny("tiny-timesfm"), saving)


def test_more_than_there_is_and_unknown_kinds() -> None:
    model = tiny("tiny-timesfm")
    with pytest.raises(TspruneError, match="ask for less"):
        chosen(model, 0.99)
    with pytest.raises(TspruneError, match="unknown kind"):
        chosen(model, 0.1, kinds=["neuron"])
    with pytest.raises(TspruneError, match="unknown objective"):
        search(model, saving=0.1, objective="joules")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", TINY)
def test_prices_are_replayed_to_the_last_bit(name: str) -> None:
    """Those of the first order and, after a removal, those of what is left."""
    model = few_samples(tiny(name))
    change = OutputChange(model, FIRST, HISTORY)  # which the first prices use, all of them
    contexts = next(histories(0, 0, FIRST, min(model.context_length, HISTORY)))
    targets = network_outputs(model, contexts)

    def plain(*components: Component) -> float:
        with applied(model, Ablation(components)):
            return float(output_distance(model, network_outputs(model, contexts), targets))

    components = model.anatomy.components()
    steps: list[tuple[str, int, int]] = []
    found = change.alone(components, lambda *step: steps.append(step))
    assert found == {c: plain(c) for c in components}
    assert steps == [("pricing", done + 1, len(components)) for done in range(len(components))]
    first, *_, last = (c for c in components if c.kind == "mlp")
    for removed in ((first,), (first, last), ()):
        heads = model.anatomy.components("head")
        assert [change.without(c, removed) for c in heads] == [plain(*removed, c) for c in heads]


def test_first_prices_are_of_a_few_histories_in_the_units_of_all() -> None:
    model = tiny("tiny-timesfm")
    change = OutputChange(model, 4 * FIRST, HISTORY)
    components = model.anatomy.components("mlp")
    found = change.alone(components, silent)
    contexts = next(histories(0, 0, 4 * FIRST, HISTORY))
    targets = network_outputs(model, contexts)
    for component in components:
        with applied(model, Ablation((component,))):
            outputs = network_outputs(model, contexts)
        mixed = [torch.cat([own[:FIRST], all_[FIRST:]]) for own, all_ in zip(outputs, targets, strict=True)]
        expected = 4 * float(output_distance(model, mixed, targets))
        assert found[component] == pytest.approx(expected, rel=1e-4)


def test_components_left_are_those_of_the_pruned_model() -> None:
    for name in MODELS:
        model = tiny(name)
        for patterns in (uneven(model), "*.1.*.head.*", "*.1.mlp"):
            removed = model.anatomy.select(patterns)
            assert components_left(model, removed) == set(prune(model, removed).anatomy.components())
