"""Laws 2 to 4: what an ablation does to a model, and that nothing of it is left afterwards."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tests.tiny as tiny
from tests.capabilities import CAPABILITIES
from tests.tiny import CountLinear, double_precision, full_length, ragged, spread
from tsprune.anatomy import AttentionSite, Component
from tsprune.hooks.ablation import ablate
from tsprune.hooks.capture import point_of, recording, reference
from tsprune.models import Forecaster


def weight(model: Forecaster, module: str) -> nn.Parameter:
    return model.module.get_submodule(module).get_parameter("weight")


OUTPUT_PROJECTIONS = {
    "chronos-bolt": ".o",
    "chronos-t5": ".o",
    "chronos2": ".o",
    "timesfm": ".attn.out",
    "toto": ".wO",
    "t0": ".attention.wO",
    "timestral": ".wO",
    "toto2": ".attn.out_proj",
    "timesfm3": ".out_proj",
    "moirai": ".out_proj",
    "moirai2": ".self_attn.out_proj",
    "moirai-moe": ".self_attn.out_proj",
}
ENCODER_DECODER = ("chronos-bolt", "chronos-t5")


def head_columns(site: AttentionSite, head: int) -> slice:
    return slice(head * site.head_dim, head * site.head_dim + site.head_dim)


def forecast(model: Forecaster) -> np.ndarray:
    """Quantiles; where values are drawn from a vocabulary, the same ones are often drawn under an
    ablation, so that the logits go with them, and few steps, as each is a pass."""
    tokens = CAPABILITIES[model.family].tokens
    quantiles = model.forecast(ragged(model, 3), 2 if tokens else 5).quantiles
    if not tokens:
        return quantiles
    with torch.no_grad():
        logits = model.teacher_forced(ragged(model, 3)).numpy()
    return np.concatenate([quantiles.ravel(), logits.ravel()])


# Law 2


def test_ablations_nest(model: Forecaster) -> None:
    heads = model.anatomy.components("head")
    with ablate(model, heads[0]):
        outer = forecast(model)
        with ablate(model, heads[-1]):
            both = forecast(model)
        np.testing.assert_array_equal(forecast(model), outer)
    with ablate(model, [heads[0], heads[-1]]):
        np.testing.assert_array_equal(forecast(model), both)


# Law 3


def test_all_heads_of_a_sublayer_leave_its_output_bias(model: Forecaster) -> None:
    """Where the output projection has none, what is left is nothing at all."""
    for component in model.anatomy.components("attention"):
        site = model.anatomy.site(component)
        output = model.module.get_submodule(site.output)
        assert (output.bias is not None) == CAPABILITIES[model.family].biased
        with ablate(model, f"{component}.head.*") as heads:
            assert len(heads) == site.heads
            by_heads = forecast(model)
        with tiny.zeroed(weight(model, site.output)):
            np.testing.assert_array_equal(forecast(model), by_heads)
        with ablate(model, component):
            by_sublayer = forecast(model)
        assert np.array_equal(by_sublayer, by_heads) == (output.bias is None)


def test_a_zeroed_head_is_right_at_every_position(model: Forecaster) -> None:
    """Transposing heads and positions is an error that a single position would hide."""
    contexts = full_length(model, 2)
    sites = [(c, model.anatomy.site(c)) for c in model.anatomy.components("attention")]
    lengths = set()
    for component, site in sites:
        head = Component(component.stack, component.layer, component.attention, site.heads - 1)
        point = point_of(model.anatomy, head)
        with recording(model.module, [point]) as clean:
            model.forecast(contexts, 1)
        with ablate(model, head), recording(model.module, [point]) as ablated:
            model.forecast(contexts, 1)
        for before, after in zip(clean[point], ablated[point], strict=True):
            expected = before.clone().reshape(*before.shape[:-1], site.heads, site.head_dim)
            expected[..., site.heads - 1, :] = 0
            torch.testing.assert_close(after, expected.view_as(before), rtol=0, atol=0)
            lengths.add(before.shape[-2])
    assert max(lengths) > 1


# Where earlier implementations went wrong (design, part 5)


def test_the_output_projection_runs_once(model: Forecaster) -> None:
    contexts = ragged(model, 2)
    for component in spread(model.anatomy.components("attention"), 4):
        site = model.anatomy.site(component)
        with CountLinear(weight(model, site.output)) as clean:
            model.forecast(contexts, 3)
        with ablate(model, f"{component}.head.0"), CountLinear(weight(model, site.output)) as ablated:
            model.forecast(contexts, 3)
        assert ablated.count == clean.count > 0


def test_the_projections_input_is_not_edited(model: Forecaster) -> None:
    for component in spread(model.anatomy.components("attention"), 4):
        output = model.module.get_submodule(model.anatomy.site(component).output)
        seen: list[tuple[Tensor, Tensor]] = []
        with (
            recorded_first(output, lambda x, seen=seen: seen.append((x, x.clone()))),
            ablate(model, f"{component}.head.1"),
        ):
            model.forecast(ragged(model, 2), 3)
        assert seen
        for tensor, copy in seen:
            assert torch.equal(tensor, copy)
            assert tensor.abs().sum() > 0


def test_a_projections_input_need_not_be_contiguous(model: Forecaster) -> None:
    for component in spread(model.anatomy.components("attention"), 4):
        output = model.module.get_submodule(model.anatomy.site(component).output)
        with double_precision(model), ablate(model, f"{component}.head.1"):
            expected = forecast(model)
            handle = output.register_forward_pre_hook(lambda _, args: (strided(args[0]),))
            strange = forecast(model)
            handle.remove()
        np.testing.assert_allclose(strange, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def strided(x: Tensor) -> Tensor:
    """The same values, laid out feature by feature."""
    y = x.movedim(-1, 0).contiguous().movedim(0, -1)
    assert torch.equal(x, y)
    return y


def recorded_first(module: nn.Module, look: object) -> ExitStack:
    handle = module.register_forward_pre_hook(lambda _, args: look(args[0]))  # type: ignore[operator]
    stack = ExitStack()
    stack.callback(handle.remove)
    return stack


def test_attention_sublayers_of_a_layer_are_ablated_independently(model: Forecaster) -> None:
    """Addressing one kind of attention leaves the input of every other projection as it was."""
    every = model.anatomy.components("attention")
    with_others = [c for c in every if len(model.anatomy.block(c).attention) > 1]
    kinds = {
        "chronos-bolt": ["cross", "self"],
        "chronos-t5": ["cross", "self"],
        "chronos2": ["group", "time"],
        "timestral": ["time", "variate"],
        "timesfm3": ["time", "variate"],
    }
    assert sorted({str(c.attention) for c in with_others}) == kinds.get(model.family, [])
    contexts = full_length(model, 2)
    for component in with_others:
        block = model.anatomy.block(component)
        points = {
            site.role: point_of(model.anatomy, Component(component.stack, component.layer, site.role, 0))
            for site in block.attention
        }
        with recording(model.module, points.values()) as clean:
            model.forecast(contexts, 1)
        with ablate(model, f"{component}.head.0"), recording(model.module, points.values()) as ablated:
            model.forecast(contexts, 1)
        kinds = list(points)
        for kind, point in points.items():
            same = all(map(torch.equal, clean[point], ablated[point]))
            upstream = kinds.index(kind) < kinds.index(component.attention)
            if kind == component.attention:
                assert not same
            elif upstream:
                assert same
            for tensor in ablated[point]:
                first = tensor[..., : block.attention[0].head_dim]
                assert (kind == component.attention) == (not first.any())


def test_every_layer_is_addressed(model: Forecaster) -> None:
    """The encoder of an encoder-decoder model too: each output projection belongs to a component."""
    addressed = {model.anatomy.site(c).output for c in model.anatomy.components("attention")}
    suffix = OUTPUT_PROJECTIONS[model.family]
    present = {
        name
        for name, part in model.module.named_modules()
        if name.endswith(suffix) and isinstance(part, nn.Linear)
    }
    assert addressed == present
    stacks = ["encoder", "decoder"] if model.family in ENCODER_DECODER else ["stack"]
    assert [stack.name for stack in model.anatomy.stacks] == stacks


def test_every_head_of_the_encoder_matters(model: Forecaster) -> None:
    if model.family not in ENCODER_DECODER:
        pytest.skip("has no encoder")
    clean = forecast(model)
    heads = model.anatomy.select("encoder.*.self.head.*")
    assert len(heads) == model.module.config.num_layers * model.module.config.num_heads
    for head in heads:
        with ablate(model, head):
            assert not np.array_equal(forecast(model), clean), head.address


# Mean and resample


def reference_inputs(model: Forecaster, head: Component, contexts: list[np.ndarray]) -> np.ndarray:
    """What a head's projection receives during forecasts of `contexts`, collected by hand: [M, T, F]."""
    seen: list[Tensor] = []
    projection = model.anatomy.site(head).output
    handle = model.module.get_submodule(projection).register_forward_pre_hook(
        lambda _, args: seen.append(args[0].clone())
    )
    model.forecast(contexts, 1)
    handle.remove()
    if model.family == "timesfm3" and head.attention == "variate":  # [B * T, 1, F]
        seen = [x.reshape(len(contexts), -1, x.shape[-1]) for x in seen]
    values = torch.cat([x.transpose(0, 1) if head.attention == "group" else x for x in seen])
    if (model.family, head.attention) == ("toto2", "variate"):  # [windows * positions, 1, features]
        values = values.reshape(len(contexts), -1, values.shape[-1])
    return values.numpy()


def test_mean_ablation_is_the_mean_over_windows(model: Forecaster) -> None:
    contexts, windows = full_length(model, 2), full_length(model, 5, seed=3)
    record = reference(model, windows)
    by_kind = {(c.stack, c.attention): c for c in model.anatomy.components("head") if c.head == 1}
    for component in by_kind.values():
        columns = head_columns(model.anatomy.site(component), 1)
        values = reference_inputs(model, component, windows)[..., columns]
        by_hand = values.astype(np.float64).mean(axis=0)  # per position and feature
        assert np.abs(by_hand - by_hand.mean(-1, keepdims=True)).max() > 1e-3  # not over features

        clean = reference_inputs(model, component, contexts)
        with ablate(model, component, mode="mean", reference=record):
            ablated = reference_inputs(model, component, contexts)

        assert ablated.shape == clean.shape
        expected = np.broadcast_to(by_hand, ablated[..., columns].shape)
        np.testing.assert_allclose(ablated[..., columns], expected, atol=1e-5, err_msg=str(component))
        np.testing.assert_array_equal(
            np.delete(ablated, np.r_[columns], -1), np.delete(clean, np.r_[columns], -1)
        )


def test_resample_ablation_takes_whole_reference_windows(model: Forecaster) -> None:
    contexts, windows = full_length(model, 3), full_length(model, 5, seed=3)
    component = model.anatomy.components("head")[0]
    site = model.anatomy.site(component)
    columns = head_columns(site, 0)
    values = reference_inputs(model, component, windows)[..., columns]
    record = reference(model, windows)

    drawn = []
    for seed in (0, 0, 1, 2, 3):
        with ablate(model, component, mode="resample", reference=record, seed=seed):
            ablated = reference_inputs(model, component, contexts)[..., columns]
        for window in ablated:
            assert any(np.array_equal(window, value) for value in values)
        drawn.append(ablated)
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert any(not np.array_equal(drawn[0], other) for other in drawn[2:])
