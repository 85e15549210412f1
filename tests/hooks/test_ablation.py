"""Ablation on a model small enough to compute by hand; the laws are in tests/conformance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.tiny import pristine
from tests.toy import HEAD_DIM, HEADS, Toy
from tsprune.anatomy import Component
from tsprune.errors import TspruneError
from tsprune.hooks.ablation import Ablation, ablate, applied, side_by_side
from tsprune.hooks.capture import Point, Reference, reference

CONTEXTS = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)


@pytest.fixture
def toy() -> Toy:
    return Toy()


def forecast(toy: Toy) -> np.ndarray:
    return toy.forecast(list(CONTEXTS), 1).quantiles


def sublayer(toy: Toy, index: int = 0) -> tuple[Tensor, Tensor]:
    """(input of the output projection, output of the sublayer) as they run, [B, T, F] each."""
    seen = []
    out = toy.module.layers[index].attention.out
    handle = out.register_forward_hook(lambda _, args, output: seen.append((args[0], output)))
    forecast(toy)
    handle.remove()
    return seen[0]


def test_one_head_by_hand(toy: Toy) -> None:
    """Without head 1, each position keeps W x of heads 0 and 2, and the bias."""
    inputs, clean = sublayer(toy)
    weight, bias = toy.module.layers[0].attention.out.weight, toy.module.layers[0].attention.out.bias
    heads = inputs.unflatten(-1, (HEADS, HEAD_DIM))
    columns = weight.unflatten(-1, (HEADS, HEAD_DIM))
    by_hand = sum(torch.einsum("btd,od->bto", heads[:, :, h], columns[:, h]) for h in (0, 2)) + bias

    with ablate(toy, "stack.0.time.head.1"):
        _, ablated = sublayer(toy)

    torch.testing.assert_close(ablated, by_hand)
    assert not torch.allclose(ablated, clean)


@pytest.mark.parametrize("layer", [0, 1])
def test_all_heads_leave_the_output_bias(toy: Toy, layer: int) -> None:
    bias = toy.module.layers[layer].attention.out.bias
    with ablate(toy, f"stack.{layer}.time.head.*"):
        _, by_heads = sublayer(toy, layer)
    assert torch.equal(by_heads, bias.expand_as(by_heads))


@pytest.mark.parametrize("layer", [0, 1])
def test_a_sublayer_leaves_nothing(toy: Toy, layer: int) -> None:
    seen = []
    with ablate(toy, f"stack.{layer}.time"):
        block = toy.module.layers[layer]
        handle = block.attention.register_forward_hook(lambda _, args, output: seen.append(output))
        forecast(toy)
        handle.remove()
    assert not seen[0].any()


def test_a_layer_passes_its_input_on(toy: Toy) -> None:
    seen = []
    with ablate(toy, "stack.1"):
        handle = toy.module.layers[1].register_forward_hook(
            lambda _, args, output: seen.append((args[0], output))
        )
        forecast(toy)
        handle.remove()
    assert torch.equal(*seen[0])


def test_heads_of_an_ablated_sublayer_add_nothing(toy: Toy) -> None:
    with ablate(toy, "stack.1.time"):
        alone = forecast(toy)
    with ablate(toy, ["stack.1.time", "stack.1.time.head.*"]):
        np.testing.assert_array_equal(forecast(toy), alone)


def test_the_context_yields_what_was_selected(toy: Toy) -> None:
    with ablate(toy, ["stack.*.mlp", "stack.0.time.head.2"]) as components:
        assert [c.address for c in components] == ["stack.0.time.head.2", "stack.0.mlp", "stack.1.mlp"]


def test_values_are_replaced_not_added(toy: Toy) -> None:
    """A reference of a constant puts this constant there, for mean and resample alike."""
    head = Component("stack", 0, "time", 1)
    point = Point("layers.0.attention.out", "input")
    constant = Reference({point: {8: torch.full((4, 8, HEADS * HEAD_DIM), 7.0)}})
    for mode in ("mean", "resample"):
        with applied(toy, Ablation((head,), mode), reference=constant):  # type: ignore[arg-type]
            inputs, _ = sublayer(toy)
        heads = inputs.unflatten(-1, (HEADS, HEAD_DIM))
        assert (heads[:, :, 1] == 7).all()
        assert not (heads[:, :, [0, 2]] == 7).any()


def test_mean_of_an_mlp_is_of_its_output(toy: Toy) -> None:
    windows = np.random.default_rng(1).standard_normal((5, 8)).astype(np.float32)
    mlp = toy.module.layers[0].mlp
    outputs: list[Tensor] = []
    handle = mlp.register_forward_hook(lambda _, args, output: outputs.append(output))
    toy.forecast(list(windows), 1)
    with ablate(toy, "stack.0.mlp", mode="mean", reference=reference(toy, list(windows))):
        handle.remove()
        handle = mlp.register_forward_hook(lambda _, args, output: outputs.append(output))
        forecast(toy)
    handle.remove()
    reference_pass, *_, ablated = outputs
    torch.testing.assert_close(ablated, reference_pass.mean(0).expand_as(ablated))


def test_without_a_reference_synthetic_series_are_one(toy: Toy) -> None:
    for mode in ("mean", "resample"):
        with ablate(toy, "stack.1.time", mode=mode):  # type: ignore[arg-type]
            first = forecast(toy)
        with ablate(toy, "stack.1.time", mode=mode):  # type: ignore[arg-type]
            np.testing.assert_array_equal(forecast(toy), first)
        with ablate(toy, "stack.1.time"):
            assert not np.array_equal(forecast(toy), first)


def test_gradients_flow_past_an_ablation(toy: Toy) -> None:
    with ablate(toy, "stack.0.time.head.1"):
        toy.teacher_forced(list(CONTEXTS)).sum().backward()
    gradient = toy.module.layers[0].attention.out.weight.grad.unflatten(-1, (HEADS, HEAD_DIM))
    assert not gradient[:, 1].any()
    assert gradient[:, [0, 2]].any()


def test_unknown_mode() -> None:
    with pytest.raises(TspruneError, match="unknown ablation mode 'median'; one of: zero, mean, resample"):
        Ablation((), "median")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "component",
    [
        Component("stack", 2),
        Component("stack", 0, "self"),
        Component("stack", 0, "time", 3),
        Component("decoder", 0),
        Component("stack", 2, mlp=True),
    ],
)
def test_components_of_another_model(toy: Toy, component: Component) -> None:
    with (
        pristine(toy),
        pytest.raises(TspruneError, match=r"not part of this model|no stack"),
        applied(toy, Ablation((Component("stack", 0, "time", 0), component))),
    ):
        pass


def test_a_pattern_without_a_match(toy: Toy) -> None:
    with pytest.raises(TspruneError, match="matches no component"), ablate(toy, "decoder.*"):
        pass


def test_a_reference_without_the_point(toy: Toy) -> None:
    record = reference(toy, list(CONTEXTS), components=[Component("stack", 0, "time", 0)])
    with (
        pristine(toy),
        pytest.raises(TspruneError, match=r"was not recorded at layers\.1\.mlp"),
        ablate(toy, "stack.1.mlp", mode="mean", reference=record),
    ):
        forecast(toy)


@pytest.mark.parametrize("mode", ["zero", "mean", "resample"])
def test_side_by_side_every_ablation_has_its_own_windows(toy: Toy, mode: str) -> None:
    """Each repetition of the batch equals the forecast under its ablation alone.

    Up to rounding: rows of a larger batch may take another way through a matrix product.
    """
    chosen = ["stack.0.time.head.1", "stack.0.time.head.2", "stack.0.time", "stack.1.mlp"]
    ablations = [Ablation(toy.anatomy.select(one), mode, seed=4) for one in chosen]  # type: ignore[arg-type]
    reference_ = reference(toy, list(CONTEXTS[::-1]))
    with pristine(toy), side_by_side(toy, ablations, reference=reference_):
        together = toy.forecast(list(CONTEXTS) * len(ablations), 1).quantiles
    for one, actual in zip(ablations, np.split(together, len(ablations)), strict=True):
        with applied(toy, one, reference=reference_):
            np.testing.assert_allclose(actual, forecast(toy), rtol=0, atol=1e-6)
