"""Attention weights by hand, and against torch's own attention."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.toy import Toy
from tsprune.anatomy import TimeAxis
from tsprune.errors import TspruneError
from tsprune.hooks.attention import AttentionMap, attention_weights, watching


def test_weights_by_hand() -> None:
    """Logits 0 and log 3: weights 1/4 and 3/4; the third key is masked."""
    query = torch.tensor([[[1.0]]])
    key = torch.tensor([[[0.0], [math.log(3)], [7.0]]])
    weights, allowed = attention_weights(query, key, torch.tensor([True, True, False]), scale=1.0)
    torch.testing.assert_close(weights, torch.tensor([[[0.25, 0.75, 0.0]]]))
    assert allowed.flatten().tolist() == [True, True, False]


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 1000),
    st.sampled_from(["none", "causal", "bool", "bias", "shut"]),
    st.sampled_from([None, 1.0, 0.3]),
)
def test_weights_are_torchs(seed: int, kind: str, scale: float | None) -> None:
    generator = torch.Generator().manual_seed(seed)
    query, key, value = (torch.randn(2, 3, 5, 4, generator=generator) for _ in range(3))
    mask = None
    if kind == "bool":
        mask = torch.rand(2, 1, 5, 5, generator=generator) < 0.7
    elif kind in ("bias", "shut"):
        mask = torch.randn(1, 3, 5, 5, generator=generator)
        if kind == "shut":
            mask[..., 3] = torch.finfo(mask.dtype).min
    causal = kind == "causal"
    weights, allowed = attention_weights(query, key, mask, is_causal=causal, scale=scale)
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=causal, scale=scale
    )
    torch.testing.assert_close(weights @ value, torch.nan_to_num(expected), atol=1e-5, rtol=1e-5)
    answered = allowed.expand_as(weights).any(-1)
    torch.testing.assert_close(weights.sum(-1), answered.float())


def test_grouped_queries_share_keys() -> None:
    generator = torch.Generator().manual_seed(1)
    query, key = (torch.randn(1, heads, 3, 2, generator=generator) for heads in (4, 2))
    weights, _ = attention_weights(query, key, enable_gqa=True)
    for head in range(4):
        alone, _ = attention_weights(query[:, head], key[:, head // 2])
        torch.testing.assert_close(weights[:, head], alone)


def test_times_of_positions() -> None:
    assert TimeAxis(4).times(3) == (-8, -4, 0)
    past, mark, *future = TimeAxis(4, marks=1, future=2).times(4)
    assert past == 0
    assert math.isnan(mark)
    assert future == [4, 8]
    assert TimeAxis(2, from_end=False).times(3) == (0, 2, 4)


def test_padding_is_no_query_and_one_key_no_choice() -> None:
    """Three positions, the first is padding, causal: only the last query has two keys."""
    allowed = torch.tensor([[False, False, False], [False, True, False], [False, True, True]])
    toy = Toy().anatomy.components("attention")[0]
    weights = allowed.float()[None, None]
    found = AttentionMap(toy, weights, allowed, torch.zeros(1, 1, 3, 2), (torch.zeros(3), torch.zeros(3)))
    assert found.counted.tolist() == [[[False, False, True]]]


def test_padding_that_sees_itself_is_padding() -> None:
    """As Moirai masks it: two positions of padding see each other, the two others each other."""
    allowed = torch.block_diag(torch.ones(2, 2), torch.ones(2, 2)).bool()
    toy = Toy().anatomy.components("attention")[0]
    weights = 0.5 * allowed.float()[None, None]
    found = AttentionMap(toy, weights, allowed, torch.zeros(1, 1, 4, 2), (torch.zeros(4), torch.zeros(4)))
    assert found.real.tolist() == [[[False, False, True, True]]]


def test_attention_that_cannot_be_seen_is_an_error() -> None:
    toy = Toy()
    toy.module.layers[0].attention.forward = lambda x: x  # attends by other means
    with pytest.raises(TspruneError, match="scaled_dot_product_attention"), watching(toy, lambda found: None):
        toy.teacher_forced([range(8)])
