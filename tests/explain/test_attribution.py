"""Attribution: writes add up to the stream, contributions to the forecast, and planted shares are found."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tsprune
from tests.explain.test_attention_maps import waves
from tests.planted import AVERAGE, BIAS, COPY, LAG, Planted
from tests.suites import configuration, tiny
from tests.tiny import TINY, full_length, pristine
from tests.toy import Toy
from tsprune.data import Suite
from tsprune.errors import TspruneError
from tsprune.explain import attribution, contributions
from tsprune.explain.attribution import _final_gain, read

SUITE = Suite("s", (configuration("a/D/short", [60, 90, 128, 75], 12),))


@pytest.mark.parametrize("name", TINY)
def test_everything_adds_up(name: str) -> None:
    model = tiny(name)
    with pristine(model):
        found = contributions(model, full_length(model, 3))
    scale = found.stream.abs().max()
    assert (found.writes.sum(1) - found.stream).abs().max() <= 1e-4 * scale
    torch.testing.assert_close(found.values.sum(1), found.total, rtol=1e-3, atol=0)
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
    elif model.family == "moirai":
        theirs = output[..., 5]  # four logits of the weights, then the Student-t's df, location
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
    assert table["share"].sum() == pytest.approx(1, abs=1e-3)
    assert (table["size"] >= table["share"].abs() - 1e-9).all()
    assert (table["low"] <= table["high"]).all()
    assert set(table["kind"]) == {"embedding", "head", "mlp"}
    assert table["layer"].max() == len(model.anatomy.stacks[-1].blocks) - 1


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
