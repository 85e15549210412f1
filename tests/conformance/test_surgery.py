"""Law 6: physically pruned is ablated; and what is left is a model like any other."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from tests.capabilities import CAPABILITIES
from tests.tiny import double_precision, full_length, output_patch, pristine, ragged, spread, uneven
from tsprune.anatomy import Anatomy, Component
from tsprune.choices import MODES
from tsprune.errors import TspruneError
from tsprune.hooks.ablation import Ablation, ablate, applied
from tsprune.hooks.capture import point_of, recording, reference
from tsprune.models import Forecaster
from tsprune.pruning import prune
from tsprune.replay import Replay
from tsprune.scores.stable_rank import stable_ranks

# Of the largest value. Sums over fewer columns are rounded differently, by 1e-16 in float64, and some of
# upstream's code and the forecast itself are rounded to float32: 6e-8, twice where a value is at an edge.
TOLERANCE = 1e-6


def outputs(model: Forecaster, horizon: int) -> list[np.ndarray]:
    contexts = ragged(model, 3)
    with double_precision(model), torch.no_grad():
        return [model.forecast(contexts, horizon).quantiles, model.teacher_forced(contexts).numpy()]


def assert_alike(actual: list[np.ndarray], expected: list[np.ndarray], what: object) -> None:
    for one, other in zip(actual, expected, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(
            one, other, rtol=0, atol=TOLERANCE * np.abs(other).max(), err_msg=str(what)
        )


def assert_pruned_is_ablated(model: Forecaster, components: Iterable[Component | str], horizon: int) -> None:
    chosen = [str(c) for c in components]
    with ablate(model, chosen):
        expected = outputs(model, horizon)
    assert_alike(outputs(prune(model, chosen), horizon), expected, chosen)


def leaves_something(anatomy: Anatomy, components: Iterable[Component]) -> bool:
    """Whether every stack keeps a head or an MLP."""
    gone = set(anatomy.expand(components))
    for stack in anatomy.stacks:
        left = [
            c
            for c in anatomy.components()
            if c.stack == stack.name
            and c.kind in ("head", "mlp")
            and c not in gone
            and Component(c.stack, c.layer, c.attention) not in gone | set(components)
        ]
        if not left:
            return False
    return True


@settings(max_examples=5)
@given(data=st.data())
def test_random_plans(loaded: Forecaster, data: st.DataObject) -> None:
    """Uneven across layers, with heads, sublayers and layers mixed."""
    every = loaded.anatomy.components()
    chosen = data.draw(st.lists(st.sampled_from(every), min_size=1, max_size=len(every) // 3, unique=True))
    assume(leaves_something(loaded.anatomy, chosen))
    with pristine(loaded):
        assert_pruned_is_ablated(loaded, chosen, output_patch(loaded) + data.draw(st.sampled_from([-3, 5])))


def test_nothing_of_what_is_removed_is_left(model: Forecaster) -> None:
    """Whole blocks go with all their parameters, but for the bias that T5's first block has for all."""
    for stack in model.anatomy.stacks:
        for layer, block in stack.numbered():
            inside = model.module.get_submodule(block.module).named_parameters()
            own = sum(p.numel() for name, p in inside if "relative_attention_bias" not in name)
            pruned = prune(model, f"{stack.name}.{layer}")
            assert pruned.parameter_count == model.parameter_count - own
            assert pruned.anatomy.components() == tuple(
                c for c in model.anatomy.components() if (c.stack, c.layer) != (stack.name, layer)
            )


def test_a_head_takes_its_rows_and_columns(model: Forecaster) -> None:
    per_head_bias = {"moirai": 2, "moirai2": 2, "moirai-moe": 2}.get(model.family, 0)  # same variate or not
    for head in spread(model.anatomy.components("head"), 6):
        site = model.anatomy.site(head)
        gate = site.head_dim if CAPABILITIES[model.family].gated else 0
        # of q, k and v; of the output and of a gate
        widths = [2 * site.query.head_dim + site.head_dim, site.head_dim + gate]
        biases = widths[0] if CAPABILITIES[model.family].biased else 0
        cut = sum(widths) * model.anatomy.d_model + biases + per_head_bias
        assert prune(model, head).parameter_count == model.parameter_count - cut, head


def test_the_copy_shares_nothing_with_the_original(model: Forecaster) -> None:
    pruned = prune(model, model.anatomy.components("head")[0])
    before = {tensor.data_ptr() for tensor in model.module.state_dict().values()}
    assert not before & {tensor.data_ptr() for tensor in pruned.module.state_dict().values()}
    with torch.no_grad():
        for parameter in pruned.module.parameters():
            parameter.zero_()  # `model` checks that it stays as it was


@pytest.fixture(scope="module")
def pair(loaded: Forecaster) -> tuple[Forecaster, Forecaster, list[str]]:
    """A model, an unevenly pruned copy of it, and what was removed."""
    chosen = uneven(loaded)
    return loaded, prune(loaded, chosen), chosen


Pair = tuple[Forecaster, Forecaster, list[str]]


def test_addresses_stay_those_of_the_original(pair: Pair) -> None:
    model, pruned, chosen = pair
    gone = set(model.anatomy.expand(model.anatomy.select(chosen)))
    covered = {Component(c.stack, c.layer, c.attention) for c in gone if c.kind == "attention"}
    left = [
        c
        for c in model.anatomy.components()
        if c not in gone and not (c.kind == "head" and Component(c.stack, c.layer, c.attention) in covered)
    ]
    assert list(pruned.anatomy.components()) == left
    assert set(pruned.anatomy.removed) == set(model.anatomy.components()) - set(left)


def test_a_pruned_model_can_be_ablated(pair: Pair) -> None:
    """Ablating what is left, by its address, is ablating both in the original."""
    model, pruned, chosen = pair
    for component in spread(pruned.anatomy.components(), 4):
        with ablate(model, [*chosen, str(component)]):
            expected = outputs(model, 5)
        with pristine(pruned), ablate(pruned, component):
            assert_alike(outputs(pruned, 5), expected, component)


def test_pruning_twice_is_pruning_at_once(pair: Pair) -> None:
    model, pruned, chosen = pair
    later = [str(c) for c in spread(pruned.anatomy.components("head"), 4)]
    twice, once = prune(pruned, later), prune(model, [*chosen, *later])
    assert twice.anatomy.stacks == once.anatomy.stacks
    assert set(twice.anatomy.removed) == set(once.anatomy.removed)
    assert twice.module.state_dict().keys() == once.module.state_dict().keys()
    rescaled = any(site.unit_scaled for _, site in model.anatomy.sites())  # so twice, with rounding
    for name, tensor in twice.module.state_dict().items():
        limit = 3e-7 if rescaled and "out_proj" in name else 0
        torch.testing.assert_close(tensor, once.module.state_dict()[name], rtol=limit, atol=0, msg=name)
    for actual, expected in zip(outputs(twice, 5), outputs(once, 5), strict=True):
        if not rescaled:
            np.testing.assert_array_equal(actual, expected)
        assert_alike([actual], [expected], "twice")


@pytest.mark.parametrize("beyond", [False, True], ids=["one patch", "autoregressive"])
def test_a_pruned_model_can_be_replayed(pair: Pair, beyond: bool) -> None:
    _, pruned, _ = pair
    horizon = output_patch(pruned) + (5 if beyond else -3)
    contexts = ragged(pruned, 3)
    replay = Replay(pruned)
    with replay.record("windows"):
        clean = pruned.forecast(contexts, horizon).quantiles
    np.testing.assert_array_equal(pruned.forecast(contexts, horizon).quantiles, clean)
    for component in spread(pruned.anatomy.components(), 5):
        with ablate(pruned, component):
            expected = pruned.forecast(contexts, horizon).quantiles
        with applied(pruned, Ablation((component,))), replay.reuse("windows", [component]):
            actual = pruned.forecast(contexts, horizon).quantiles
        np.testing.assert_array_equal(actual, expected, err_msg=str(component))


def test_a_pruned_model_can_be_recorded(pair: Pair) -> None:
    """What a head is in the original with the rest ablated, it is in the pruned model."""
    model, pruned, chosen = pair
    contexts = full_length(model, 2)
    for head in spread(pruned.anatomy.components("head"), 6):
        here, there = point_of(pruned.anatomy, head), point_of(model.anatomy, head)
        with recording(pruned.module, [here]) as actual:
            pruned.forecast(contexts, 1)
        with ablate(model, chosen), recording(model.module, [there]) as expected:
            model.forecast(contexts, 1)
        for one, other in zip(actual[here], expected[there], strict=True):
            torch.testing.assert_close(
                one[..., pruned.anatomy.site(head).columns(head.head or 0)],
                other[..., model.anatomy.site(head).columns(head.head or 0)],
                rtol=1e-4,
                atol=1e-4 * float(other.abs().max()),
            )


@pytest.mark.parametrize("mode", MODES[1:])
def test_mean_and_resample_of_a_pruned_model(pair: Pair, mode: str) -> None:
    _, pruned, _ = pair
    contexts, windows = full_length(pruned, 2), full_length(pruned, 4, seed=3)
    record = reference(pruned, windows)
    clean = pruned.forecast(contexts, 3).quantiles
    with ablate(pruned, pruned.anatomy.components(), mode=mode, reference=record):  # type: ignore[arg-type]
        assert not np.array_equal(pruned.forecast(contexts, 3).quantiles, clean)


def test_stable_ranks_of_what_is_left(pair: Pair) -> None:
    model, pruned, _ = pair
    before = stable_ranks(model).set_index("address")
    after = stable_ranks(pruned).set_index("address")
    assert list(after.index) == [c.address for c in pruned.anatomy.components("head")]
    np.testing.assert_allclose(after["stable_rank"], before.loc[after.index, "stable_rank"], rtol=1e-9)
    np.testing.assert_allclose(
        after["stable_rank_effective"], before.loc[after.index, "stable_rank_effective"], rtol=1e-9
    )


def test_what_cannot_be_removed_is_one_clear_line(pair: Pair) -> None:
    model, pruned, chosen = pair
    for address in chosen[:2]:
        with pytest.raises(TspruneError, match=rf"^{address} was already removed from this model$"):
            prune(pruned, address)
    for stack in model.anatomy.stacks:
        with pytest.raises(TspruneError, match=rf"^nothing would be left of the {stack.name}; keep"):
            prune(model, f"{stack.name}.*")
    with pytest.raises(TspruneError, match=r"^the plan is empty"):
        prune(model, [])
    with pytest.raises(TspruneError, match="matches no component"):
        prune(model, "decoder.99.mlp")


def test_all_heads_of_a_sublayer_leave_its_bias(model: Forecaster) -> None:
    """Where the output projection has one: what is left can itself be ablated and removed."""
    sublayer = model.anatomy.components("attention")[0]
    headless = prune(model, f"{sublayer}.head.*")
    assert (sublayer in headless.anatomy.components()) == CAPABILITIES[model.family].biased
    if not CAPABILITIES[model.family].biased:
        return
    output = headless.module.get_submodule(headless.anatomy.site(sublayer).output)
    assert isinstance(output, nn.Linear)
    assert output.weight.shape == (model.anatomy.d_model, 0)
    with ablate(headless, sublayer):
        expected = outputs(headless, 5)
    with ablate(model, sublayer):
        assert_alike(outputs(model, 5), expected, sublayer)
    assert_alike(outputs(prune(headless, sublayer), 5), expected, sublayer)
