"""Scores of attention maps: cases by hand, bounds, and the SVD they stand for."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tsprune.anatomy import Component
from tsprune.hooks.attention import AttentionMap
from tsprune.scores.maps import (
    attention_entropic_rank,
    attention_entropy,
    attention_sharpness,
    attention_stable_rank,
    map_energies,
)

SELF, CROSS = Component("stack", 0, "self"), Component("decoder", 0, "cross")


def seen(weights: Tensor, allowed: Tensor | None = None, component: Component = SELF) -> AttentionMap:
    """One window and one head that attends with `weights` [Q, K]."""
    allowed = torch.ones_like(weights, dtype=torch.bool) if allowed is None else allowed
    queries, keys = weights.shape
    value, times = torch.zeros(1, 1, keys, 1), (torch.zeros(queries), torch.zeros(keys))
    return AttentionMap(component, weights[None, None], allowed[None, None], value, times)


def test_an_even_map() -> None:
    found = seen(torch.full((5, 5), 0.2))
    assert attention_entropy(found).item() == pytest.approx(math.log(5))
    assert attention_sharpness(found).item() == pytest.approx(0, abs=1e-6)
    assert attention_stable_rank(found).item() == pytest.approx(1)
    assert attention_entropic_rank(found).item() == pytest.approx(1, abs=1e-6)


def test_a_map_of_rank_one_need_not_be_even() -> None:
    found = seen(torch.tensor([0.7, 0.2, 0.1]).expand(3, 3))
    assert attention_stable_rank(found).item() == pytest.approx(1)
    assert 0 < attention_sharpness(found).item() < 1


def test_a_map_that_only_permutes() -> None:
    found = seen(torch.eye(4)[[2, 0, 3, 1]])
    assert attention_entropy(found).item() == 0
    assert attention_sharpness(found).item() == 1
    assert attention_stable_rank(found).item() == pytest.approx(4)
    assert attention_entropic_rank(found).item() == pytest.approx(4)


def test_causal_by_hand() -> None:
    """Rows (1, 0) and (1/2, 1/2): A'A has trace 3/2 and determinant 1/4. Only the second has a choice."""
    allowed = torch.ones(2, 2, dtype=torch.bool).tril()
    found = seen(torch.tensor([[1.0, 0.0], [0.5, 0.5]]), allowed)
    largest = (1.5 + math.sqrt(1.5**2 - 4 * 0.25)) / 2
    assert attention_stable_rank(found).item() == pytest.approx(1.5 / largest)
    assert attention_entropy(found).item() == pytest.approx(math.log(2))


def test_padding_has_no_say() -> None:
    """The first position is padding: nobody sees it, but it attends to the others (as in an encoder)."""
    inner = torch.tensor([[0.5, 0.5], [0.25, 0.75]])
    weights = torch.cat([torch.tensor([[1.0, 0.0]]), inner])
    padded = torch.cat([torch.zeros(3, 1), weights], 1)
    allowed = torch.tensor([[False, True, True]] * 3)
    for score in (attention_entropy, attention_sharpness, attention_stable_rank, attention_entropic_rank):
        torch.testing.assert_close(score(seen(padded, allowed)), score(seen(inner)))


def test_without_a_choice_there_is_no_score() -> None:
    single = seen(torch.ones(1, 1))
    for score in (attention_entropy, attention_sharpness, attention_stable_rank, attention_entropic_rank):
        assert math.isnan(score(single).item())
    row = seen(torch.tensor([[0.5, 0.5]]), component=CROSS)  # of a one-token decoder
    assert attention_entropy(row).item() == pytest.approx(math.log(2))
    assert math.isnan(attention_stable_rank(row).item())
    assert math.isnan(attention_entropic_rank(row).item())


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 7), st.integers(2, 7), st.integers(0, 1000))
def test_energies_are_those_of_the_svd(queries: int, keys: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = (3 * torch.randn(queries, keys, generator=generator)).softmax(-1)
    found = seen(weights, component=CROSS)
    expected = torch.linalg.svdvals(weights.double()) ** 2
    torch.testing.assert_close(map_energies(found)[0, 0].flip(-1), expected, atol=1e-9, rtol=1e-6)
    ranks = attention_stable_rank(found).item(), attention_entropic_rank(found).item()
    assert 1 - 1e-9 <= ranks[0] <= ranks[1] * (1 + 1e-9) <= min(queries, keys) * (1 + 2e-9)
