"""Removal on a small network of our own: interleaved heads, grouped queries, an output bias."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.toy import HEAD_DIM, HEADS, WIDTH, Toy
from tsprune.anatomy import AttentionSite, Component, Projection
from tsprune.errors import TspruneError
from tsprune.hooks.ablation import ablate
from tsprune.models.absent import AbsentAttention, Nothing
from tsprune.models.removal import _with_heads, remove

SERIES = [np.arange(8.0), np.cos(np.arange(8.0)), np.ones(8)]


def output(model: Toy) -> torch.Tensor:
    with torch.no_grad():
        return model.teacher_forced(SERIES)


def test_rows_and_columns_of_interleaved_heads_by_hand() -> None:
    model, original = Toy(), Toy()
    remove(model, [Component("stack", 0, "time", 1)])
    before, after = original.module.layers[0].attention, model.module.layers[0].attention
    # rows are (q or k or v, dimension, head): of every three neighbouring rows the middle one goes
    kept = [row for row in range(3 * HEADS * HEAD_DIM) if row % HEADS != 1]
    assert torch.equal(after.qkv.weight, before.qkv.weight[kept])
    assert torch.equal(after.qkv.bias, before.qkv.bias[kept])
    columns = [*range(HEAD_DIM), *range(2 * HEAD_DIM, 3 * HEAD_DIM)]
    assert torch.equal(after.out.weight, before.out.weight[:, columns])
    assert torch.equal(after.out.bias, before.out.bias)
    assert (after.qkv.out_features, after.out.in_features) == (len(kept), len(columns))
    assert model.anatomy.stacks[0].blocks[0].attention[0].numbers == (0, 2)


def test_a_shared_key_head_stays() -> None:
    model, original = Toy(), Toy()
    remove(model, [Component("stack", 1, "time", 0)])
    before, after = original.module.layers[1].attention, model.module.layers[1].attention
    assert torch.equal(after.q.weight, before.q.weight[HEAD_DIM:])
    assert torch.equal(after.k.weight, before.k.weight)
    site = model.anatomy.site(Component("stack", 1, "time", 2))
    assert (site.heads, site.key.heads, site.key_head(2), site.position(2)) == (2, 1, 0, 1)
    with pytest.raises(TspruneError, match="already removed"):
        model.anatomy.site(Component("stack", 1, "time", 0))


def grouped(heads: int, key_heads: int) -> AttentionSite:
    query = Projection("q", heads, 2)
    key, value = Projection("k", key_heads, 2), Projection("v", key_heads, 2)
    return AttentionSite("self", "a", "o", heads, 2, query, key, value)


def test_grouped_queries_lose_as_many_heads_from_each_group() -> None:
    site = grouped(6, 2)  # heads 0 to 2 and 3 to 5
    even = _with_heads(site, (0, 2, 4, 5))
    assert (even.heads, even.key.heads, [even.key_head(h) for h in even.numbers]) == (4, 2, [0, 0, 1, 1])
    whole = _with_heads(site, (3, 4, 5))
    assert (whole.heads, whole.key.heads, whole.value.heads) == (3, 1, 1)
    with pytest.raises(TspruneError, match="as many heads from each group"):
        _with_heads(site, (0, 1, 2, 3))


@settings(max_examples=30)
@given(data=st.data())
def test_numbers_and_positions_are_inverse(data: st.DataObject) -> None:
    site = grouped(8, 8)
    for _ in range(2):  # also after a second removal
        kept = data.draw(st.lists(st.sampled_from(site.numbers), min_size=1, unique=True).map(sorted))
        site = _with_heads(site, tuple(kept))
        assert site.numbers == tuple(kept)
        assert [site.position(head) for head in kept] == list(range(len(kept)))
        assert [site.columns(head).start for head in kept] == [2 * i for i in range(len(kept))]


def test_heads_that_all_go_leave_the_bias_of_their_projection() -> None:
    model, original = Toy(), Toy()
    with ablate(original, "stack.0.time.head.*"):
        expected = output(original)
    remove(model, original.anatomy.select("stack.0.time.head.*"))
    attention = model.module.layers[0].attention
    assert isinstance(attention, AbsentAttention)
    assert [name for name, _ in attention.named_parameters()] == ["out.weight", "out.bias"]
    assert attention.out.weight.shape == (WIDTH, 0)
    torch.testing.assert_close(output(model), expected)


def test_a_whole_layer_leaves_its_list() -> None:
    model, original = Toy(), Toy()
    with ablate(original, "stack.0"):
        expected = output(original)
    remove(model, original.anatomy.select("stack.0"))
    assert len(model.module.layers) == 1
    (block,) = model.anatomy.stacks[0].blocks
    assert (block.module, block.number) == ("layers.0", 1)
    assert block.mlp is not None
    assert block.mlp.output == "layers.0.mlp"
    assert block.attention[0].query.module == "layers.0.attention.q"
    assert [c.address for c in model.anatomy.components("layer")] == ["stack.1"]
    torch.testing.assert_close(output(model), expected)


def test_entries_of_a_layer_leave_with_it() -> None:
    """Of parameters and of buffers; those of layers that lose a part stay."""
    model = Toy()
    table, scales = torch.arange(6, dtype=torch.float64).view(2, 3), torch.arange(2.0)
    model.module.register_buffer("table", table)
    model.module.register_parameter("scales", torch.nn.Parameter(scales))
    stack = dataclasses.replace(model.anatomy.stacks[0], per_layer=("table", "scales"))
    model.anatomy = dataclasses.replace(model.anatomy, stacks=(stack,))
    remove(model, model.anatomy.select("stack.1.mlp"))
    assert torch.equal(model.module.get_buffer("table"), table)
    remove(model, model.anatomy.select("stack.0"))
    assert torch.equal(model.module.get_buffer("table"), table[1:])
    assert torch.equal(model.module.get_parameter("scales"), scales[1:])
    assert model.anatomy.stacks[0].per_layer == ("table", "scales")


def test_a_refused_removal_changes_nothing() -> None:
    model = Toy()
    before, anatomy = {k: v.clone() for k, v in model.module.state_dict().items()}, model.anatomy
    for components in (
        model.anatomy.components("layer"),
        [Component("stack", 0, "time", 0), Component("stack", 0, "time", 7)],
        [Component("stack", 0, "time", 0), Component("stack", 5)],
    ):
        with pytest.raises(TspruneError):
            remove(model, components)
    assert model.anatomy == anatomy
    assert model.module.state_dict().keys() == before.keys()
    assert all(torch.equal(v, before[k]) for k, v in model.module.state_dict().items())


def test_what_stands_in_contributes_nothing() -> None:
    x = torch.randn(2, 3, WIDTH, generator=torch.Generator().manual_seed(1))
    assert torch.equal(x + Nothing()(x, "anything", more=1), x)
    assert torch.equal(x + AbsentAttention()(x), x)
    linear = torch.nn.Linear(1, WIDTH)
    linear.weight = torch.nn.Parameter(linear.weight[:, :0])
    biased = AbsentAttention(linear, "out")
    assert torch.equal(biased(x), linear.bias.expand_as(x))
