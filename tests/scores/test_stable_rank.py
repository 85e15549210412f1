"""Stable rank: cases by hand, invariances and bounds."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.toy import WIDTH, Toy
from tsprune.scores.stable_rank import query_key, singular_values, stable_rank, stable_ranks


def of(query: Tensor, key: Tensor) -> float:
    """Stable rank of one head's W_Q W_K^T; both [d_model, head_dim]."""
    return float(stable_rank(singular_values(query[None], key[None]))[0])


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def orthonormal(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.linalg.qr(random(rows, columns, seed=seed)).Q


def test_one_mode_has_rank_one() -> None:
    query = random(10, 1, seed=1) @ random(1, 4, seed=2)
    assert of(query, random(10, 4, seed=3)) == pytest.approx(1)


def test_equal_modes_have_rank_head_dim() -> None:
    assert of(orthonormal(10, 4, 1), orthonormal(10, 4, 2)) == pytest.approx(4)


def test_diagonal_by_hand() -> None:
    query = torch.eye(6, 3)
    key = torch.eye(6, 3) * torch.tensor([1.0, 2.0, 1.0])
    # singular values 2, 1, 1: (4 + 1 + 1) / 4
    assert of(query, key) == pytest.approx(1.5)
    assert singular_values(query[None], key[None])[0].tolist() == pytest.approx([2, 1, 1])


def test_two_by_two_by_hand() -> None:
    # A = [[1, 1], [0, 1]]: Frobenius norm squared 3, largest eigenvalue of A A^T (3 + sqrt 5) / 2
    query = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    assert of(query, torch.eye(2)) == pytest.approx(6 / (3 + math.sqrt(5)))


def test_a_zero_head_has_no_stable_rank() -> None:
    ranks = stable_rank(
        singular_values(torch.stack([random(8, 3), torch.zeros(8, 3)]), random(2, 8, 3, seed=1))
    )
    assert math.isfinite(ranks[0])
    assert math.isnan(ranks[1])


def test_heads_do_not_mix() -> None:
    query, key = random(5, 12, 3, seed=1), random(5, 12, 3, seed=2)
    together = stable_rank(singular_values(query, key)).tolist()
    assert together == pytest.approx([of(q, k) for q, k in zip(query, key, strict=True)])


SIZES = st.tuples(st.integers(1, 6), st.integers(0, 10), st.integers(0, 10_000))


@given(SIZES)
def test_equals_the_dense_matrix_and_its_bounds(size: tuple[int, int, int]) -> None:
    head_dim, more, seed = size
    query, key = (random(head_dim + more, head_dim, seed=s) for s in (seed, seed + 1))
    dense = torch.linalg.svdvals(query @ key.T)
    assert of(query, key) == pytest.approx(float((dense**2).sum() / dense[0] ** 2))
    assert 1 - 1e-9 <= of(query, key) <= head_dim + 1e-9


@given(SIZES, st.floats(1e-3, 1e3), st.floats(-1e3, -1e-3))
def test_scaling_changes_nothing(size: tuple[int, int, int], a: float, b: float) -> None:
    head_dim, more, seed = size
    query, key = (random(head_dim + more, head_dim, seed=s) for s in (seed, seed + 1))
    assert of(a * query, b * key) == pytest.approx(of(query, key))


@given(SIZES)
def test_rotations_change_nothing(size: tuple[int, int, int]) -> None:
    """Neither of the head's dimensions (q . k is the same) nor of the residual stream's."""
    head_dim, more, seed = size
    width = head_dim + more
    query, key = (random(width, head_dim, seed=s) for s in (seed, seed + 1))
    inner, left, right = (orthonormal(n, n, seed=seed + 2) for n in (head_dim, width, width))
    assert of(query @ inner, key @ inner) == pytest.approx(of(query, key))
    assert of(left @ query, right @ key) == pytest.approx(of(query, key))


def test_width_below_head_dim() -> None:
    """Small models may have wider heads than residual stream: the rank is bounded by both."""
    query, key = random(3, 8, seed=1), random(3, 8, seed=2)
    dense = torch.linalg.svdvals(query @ key.T)
    assert of(query, key) == pytest.approx(float((dense**2).sum() / dense[0] ** 2))


@pytest.mark.parametrize("layer", [0, 1], ids=["interleaved", "grouped"])
def test_heads_are_told_apart_in_other_layouts(layer: int) -> None:
    """Toto interleaves its heads in a fused layer: contiguous slices there would mix them."""
    toy = Toy()
    site = toy.anatomy.stacks[0].blocks[layer].attention[0]
    seen: list[tuple[Tensor, Tensor]] = []
    original = torch.nn.functional.scaled_dot_product_attention

    def look(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        seen.append((query, key))
        return original(query, key, value)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", look)
        attention = toy.module.get_submodule(site.module)
        for name, parameter in attention.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
        attention(torch.eye(WIDTH)[:, None])
    ((queries, keys),) = seen  # [d_model, heads, 1, head_dim] of the unit vectors
    form = torch.einsum("ihd,jhd->hij", queries[:, :, 0].double(), keys[:, :, 0].double())
    values = torch.linalg.svdvals(form)

    table = stable_ranks(toy)
    ranks = table[table["layer"] == layer]["stable_rank"].tolist()
    assert ranks == pytest.approx(((values**2).sum(-1) / values[:, 0] ** 2).tolist(), rel=1e-4)
    query, key = query_key(toy, site, "paper")
    torch.testing.assert_close(query @ key.mT, form, rtol=1e-4, atol=1e-6)
