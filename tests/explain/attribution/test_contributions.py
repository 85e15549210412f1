"""Attribution: writes add up to the stream, contributions to the forecast, and planted shares are found."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch

import tsprune
from tests.planted import AVERAGE, BIAS, COPY, LAG, Planted
from tests.suites import configuration, tiny, waves
from tests.tiny import TINY, full_length, pristine
from tests.toy import Toy
from tsprune.choices import Mode
from tsprune.data import Suite
from tsprune.errors import TspruneError
from tsprune.explain import attribution, contributions
from tsprune.explain.attribution.contributions import COMPLETE, _average_gradient, _final_gain, _scalar, read
from tsprune.hooks.capture import Point, recording
from tsprune.pruning import prune

SUITE = Suite("s", (configuration("a/D/short", [60, 90, 128, 75], 12),))


@pytest.mark.parametrize("name", TINY)
def test_everything_adds_up(name: str) -> None:
    model = tiny(name)
    with pristine(model):
        found = contributions(model, full_length(model, 3))
    scale = found.stream.abs().max()
    assert (found.writes.sum(1) - found.stream).abs().max() <= 1e-4 * scale
    # integration is as fine as COMPLETE asks for; writes are float32, so their sum is rounded
    torch.testing.assert_close(found.values.sum(1), found.total, rtol=1.1 * COMPLETE, atol=0)
    heads = [c.address for c in model.anatomy.components("head") if c.stack == model.anatomy.stacks[-1].name]
    assert [n for n in found.names if ".head." in n] == heads
    assert len(set(found.names)) == len(found.names)


@pytest.mark.parametrize("name", TINY)
def test_what_is_read_is_the_networks_output(name: str) -> None:
    """The readout, applied to the stream, gives numbers that the network itself returned."""
    model = tiny(name)
    contexts = full_length(model, 2)
    readout = model.anatomy.readout
    assert readout is not None
    stream = contributions(model, contexts).stream
    with torch.no_grad():
        ours = read(model, readout, stream * _final_gain(model, readout, stream))
        output = model.teacher_forced(contexts)
    if model.family == "timesfm":
        theirs = output[:, 0, -1]
    elif model.family == "toto":
        theirs = output[..., 2].flatten(1)  # weight, df, location, scale
    elif model.family in ("moirai", "moirai-moe"):
        theirs = output[..., 5]  # four logits of the weights, then the Student-t's df, location
        ours, beyond = ours.split([theirs.shape[1], ours.shape[1] - theirs.shape[1]], dim=1)
        assert torch.equal(beyond, beyond[:1].expand_as(beyond))  # biases, up to the largest patch size
    elif model.family == "chronos-t5":
        theirs = output[:, -1]
    else:
        theirs = output.flatten(1)
    torch.testing.assert_close(ours.float(), theirs.float(), rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


def test_a_component_that_is_switched_off_contributes_nothing() -> None:
    model = tiny("tiny-timesfm")
    with tsprune.ablate(model, ["stack.1.self.head.0", "stack.2.mlp"]):
        found = contributions(model, full_length(model, 2))
    for name in ("stack.1.self.head.0", "stack.2.mlp"):
        assert (found.writes[:, found.names.index(name)] == 0).all()
        assert (found.values[:, found.names.index(name)] == 0).all()


@pytest.mark.parametrize("mode", ["zero", "mean"])
@pytest.mark.parametrize("name", TINY)
def test_the_heads_of_an_ablated_sublayer_write_nothing(name: str, mode: Mode) -> None:
    """What replaced the sublayer's output counts as its bias; of a replaced head, what replaced it counts."""
    model = tiny(name)
    last = model.anatomy.stacks[-1].name
    whole, *_, other = (
        c for c in model.anatomy.components("attention") if c.stack == last and model.anatomy.site(c).heads
    )
    head = dataclasses.replace(other, head=model.anatomy.site(other).numbers[0])
    off = [whole, head]
    known = tsprune.reference(model, full_length(model, 3), components=off, horizon=1)
    with tsprune.ablate(model, off, mode=mode, reference=known):
        found = contributions(model, full_length(model, 2))
    writes = dict(zip(found.names, found.writes.unbind(1), strict=True))
    scale = found.stream.abs().max()
    assert (sum(writes.values()) - found.stream).abs().max() <= 1e-4 * scale
    heads = [name for name in found.names if name.startswith(f"{whole.address}.head.")]
    assert len(heads) == model.anatomy.site(whole).heads
    assert not any(writes[name].any() for name in heads)
    for address in (f"{whole.address}.bias", head.address):
        assert bool(writes[address].any()) == (mode == "mean")


def test_planted_shares_by_hand() -> None:
    """The stream is read linearly: each part's share is its term of the forecast."""
    model, suite = Planted(), waves(LAG)
    contexts = suite.configurations[0].contexts
    found = contributions(model, contexts)
    for row, context in enumerate(contexts):
        terms = {
            "embedding": 0.0,
            "stack.0.self.head.0": COPY * context[-LAG],
            "stack.0.self.head.1": AVERAGE * context.sum() / (len(context) + 1),
            "stack.0.self.bias": BIAS,
            "stack.0.mlp": 0.0,
        }
        assert found.names == tuple(terms)
        expected = np.array(list(terms.values())) / sum(terms.values())
        np.testing.assert_allclose(found.shares[row], expected, atol=1e-4)


@pytest.mark.parametrize("name", ["tiny-chronos-bolt", "tiny-chronos-t5"])
def test_the_table_sums_to_one(name: str) -> None:
    model = tiny(name)
    table = attribution(model, SUITE)
    sums = table.groupby("stack")["share"].sum()
    assert sums["decoder"] == pytest.approx(1, abs=1e-3)
    fetched = table.loc[table["part"].str.contains(".cross.head."), "share"].sum()
    assert sums["encoder"] == pytest.approx(fetched, abs=1e-3)
    assert (table["size"] >= table["share"].abs() - 1e-9).all()
    assert (table["low"] <= table["high"]).all()
    assert set(table["kind"]) == {"embedding", "head", "mlp"}
    for stack in model.anatomy.stacks:
        assert table.loc[table["stack"] == stack.name, "layer"].max() == len(stack.blocks) - 1


def test_a_model_that_nobody_described_is_refused() -> None:
    with pytest.raises(TspruneError, match="residual stream is read"):
        contributions(Toy(), [range(8)])


@pytest.mark.parametrize("name", TINY)
def test_a_norm_on_the_way_to_the_stream_serves_its_sublayer_only(name: str) -> None:
    """So it goes when the sublayer is removed."""
    blocks = [block for stack in tiny(name).anatomy.stacks for block in stack.blocks]
    sublayers = [*(site for block in blocks for site in block.attention), *(block.mlp for block in blocks)]
    for sublayer in sublayers:
        assert sublayer is not None
        assert sublayer.norm is None or sublayer.norm in sublayer.others


# --- the encoder's share -------------------------------------------------------------------------

ENCODER_DECODERS = ["tiny-chronos-bolt", "tiny-chronos-t5"]


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_what_was_fetched_is_divided_without_a_rest(name: str) -> None:
    model = tiny(name)
    with pristine(model):
        found = contributions(model, full_length(model, 3))
    crossing = [place for place, part in enumerate(found.names) if ".cross.head." in part]
    scale = found.fetched.abs().sum(1)
    rest = found.fetched.sum(1) - found.values[:, crossing].sum(1)
    assert (rest.abs() <= 1e-5 * scale).all()
    parts = [
        c.address for c in model.anatomy.components() if c.stack == "encoder" and c.kind in ("head", "mlp")
    ]
    assert found.sources == ("encoder.embedding", *parts)


def test_models_of_one_stack_fetch_nothing() -> None:
    found = contributions(tiny("tiny-timesfm"), full_length(tiny("tiny-timesfm"), 2))
    assert found.sources == ()
    assert found.fetched.shape == (2, 0)


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_an_encoders_part_is_what_goes_with_it_when_norm_and_pattern_stay(name: str) -> None:
    """The network itself is the judge. Its decoder has one layer, nothing of the encoder comes after its last
    MLP, and the encoder's final norm and the cross-attention's keys are held at what they were: then
    what the heads of cross-attention no longer write without this MLP is what it wrote through them."""
    whole = tiny(name)
    later = [f"decoder.{layer}" for layer in whole.anatomy.stack("decoder").numbers[1:]]
    model = prune(whole, later)
    contexts = full_length(model, 3)
    last = model.anatomy.stack("encoder").numbers[-1]
    found = contributions(model, contexts)
    (block,) = model.anatomy.stack("decoder").blocks
    cross = next(site for site in block.attention if site.role == "cross")
    norm = model.anatomy.stack("encoder").norm
    assert norm is not None
    points = [Point(norm, "input"), Point(norm, "output"), Point(cross.key.module, "output")]
    heads = Point(cross.output, "input")
    with torch.no_grad(), recording(model.module, [*points, heads]) as clean:
        model.teacher_forced(contexts)
    before, after, keys = (clean[point][0] for point in points)
    hooks = [
        model.module.get_submodule(norm).register_forward_hook(lambda _m, args, _o: args[0] * after / before),
        model.module.get_submodule(cross.key.module).register_forward_hook(lambda *_: keys),
    ]
    try:
        off = tsprune.ablate(model, f"encoder.{last}.mlp")
        with torch.no_grad(), off, recording(model.module, [heads]) as without:
            model.teacher_forced(contexts)
    finally:
        for hook in hooks:
            hook.remove()
    lost = (clean[heads][0] - without[heads][0])[:, -1]
    lost = lost @ model.module.get_submodule(cross.output).get_parameter("weight").T
    readout = model.anatomy.readout
    assert readout is not None
    gain = _final_gain(model, readout, found.stream)
    normed = (found.stream * gain).double()
    worth = _average_gradient(model, _scalar(model, readout, normed), normed, found.total) * gain
    expected = (lost * worth).sum(-1)
    actual = found.fetched[:, found.sources.index(f"encoder.{last}.mlp")]
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-5 * float(found.total.abs().max()))
    assert (actual.abs() > 1e-4 * found.total.abs()).any()


def test_an_encoders_part_that_is_switched_off_contributes_nothing() -> None:
    model = tiny("tiny-chronos-bolt")
    off = ["encoder.0.self.head.1", "encoder.1.mlp"]
    with tsprune.ablate(model, off):
        found = contributions(model, full_length(model, 2))
    for name in off:
        assert (found.fetched[:, found.sources.index(name)] == 0).all()


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_a_pruned_encoder_is_divided_alike(name: str) -> None:
    model = tiny(name)
    plan = ["encoder.0.self.head.1", "decoder.1.cross.head.0", "encoder.0.mlp"]
    contexts = full_length(model, 2)
    with tsprune.ablate(model, plan):
        expected = contributions(model, contexts)
    found = contributions(prune(model, plan), contexts)
    kept = [place for place, part in enumerate(expected.sources) if part in found.sources]
    assert [expected.sources[place] for place in kept] == list(found.sources)
    torch.testing.assert_close(
        found.fetched, expected.fetched[:, kept], rtol=1e-3, atol=1e-4 * float(found.total.abs().max())
    )


def test_a_norm_that_the_anatomy_forgot_is_noticed() -> None:
    model = copy.copy(tiny("tiny-chronos-bolt"))
    encoder, decoder = model.anatomy.stacks
    model.anatomy = dataclasses.replace(
        model.anatomy, stacks=(dataclasses.replace(encoder, norm=None), decoder)
    )
    with pytest.raises(TspruneError, match="do not add up"):
        contributions(model, full_length(model, 2))
