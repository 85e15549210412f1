"""Precision of training by what the processor can do, and Muon in that precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tsprune.errors import TspruneError
from tsprune.precision import (
    FEW_POSITIONS,
    Muon,
    Precision,
    autocast,
    native_bfloat16,
    orthogonalised,
    training_precision,
)

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPES = [(64, 64), (48, 16), (16, 40)]
RATE, DECAY = 1e-2, 0.01


def stepped(make: Callable[[list[nn.Parameter]], Any], steps: int = 4) -> list[torch.Tensor]:
    """Matrices after a few steps on random gradients."""
    generator = torch.Generator().manual_seed(0)
    matrices = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    optimizer = make(matrices)
    for _ in range(steps):
        for matrix in matrices:
            matrix.grad = torch.randn(matrix.shape, generator=generator)
        optimizer.step()
    return [matrix.detach() for matrix in matrices]


def ours(precision: Precision) -> list[torch.Tensor]:
    return stepped(lambda m: Muon(m, lr=RATE, weight_decay=DECAY, precision=precision))


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch before 2.9 has no Muon")
def test_in_bfloat16_the_steps_are_torchs_to_the_last_bit() -> None:
    theirs = stepped(
        lambda m: torch.optim.Muon(m, lr=RATE, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw")
    )
    assert all(torch.equal(one, other) for one, other in zip(ours("bfloat16"), theirs, strict=True))


def test_in_float32_they_are_the_same_up_to_rounding() -> None:
    for one, other in zip(ours("float32"), ours("bfloat16"), strict=True):
        assert not torch.equal(one, other)
        # four updates of root mean square 0.2 * RATE, of which bfloat16 rounds away about a hundredth
        torch.testing.assert_close(one, other, rtol=0, atol=4 * RATE * 0.2 * 0.1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_singular_values_end_close_to_one(shape: tuple[int, int], dtype: torch.dtype) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    result = orthogonalised(matrix)
    assert (result.dtype, result.shape) == (dtype, matrix.shape)
    values = torch.linalg.svdvals(result.float())
    assert values.max() < 1.3
    assert values.median() > 0.6


@pytest.mark.parametrize("shape", [(16, 64), (64, 16), (24, 48), (48, 40)])
def test_wide_matrices_by_their_gram_matrix_are_those_of_the_direct_iteration(shape: tuple[int, int]) -> None:
    """In float64 the direct iteration is taken; singular values span four orders of magnitude."""
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    matrix = matrix * torch.logspace(0, -4, shape[1])
    expected = orthogonalised(matrix.double())
    torch.testing.assert_close(orthogonalised(matrix).double(), expected, rtol=0, atol=1e-3)


class Handed:
    """A Muon whose state is handed to a new one before every step."""

    def __init__(self, matrices: list[nn.Parameter]) -> None:
        self.matrices = matrices
        self.inner = Muon(matrices, lr=RATE, weight_decay=DECAY, precision="float32")

    def step(self) -> None:
        again = Muon(self.matrices, lr=1.0, precision="float32")
        again.load_state_dict(self.inner.state_dict())
        self.inner = again
        self.inner.step()


def test_a_state_goes_on() -> None:
    for one, other in zip(stepped(Handed), ours("float32"), strict=True):
        assert torch.equal(one, other)


def test_muon_trains_matrices_only() -> None:
    with pytest.raises(ValueError, match="matrices only"):
        Muon([nn.Parameter(torch.ones(3))], precision="float32")


# --- which precision -----------------------------------------------------------------------------


def processor(
    monkeypatch: pytest.MonkeyPatch, *, avx512: bool, amx: bool, capability: str = "AVX512"
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)


@pytest.mark.parametrize(
    ("avx512", "amx", "expected"),
    [(False, False, "float32"), (True, False, "bfloat16"), (False, True, "bfloat16")],
)
def test_auto_follows_the_processor(
    monkeypatch: pytest.MonkeyPatch, avx512: bool, amx: bool, expected: str
) -> None:
    processor(monkeypatch, avx512=avx512, amx=amx)
    assert training_precision("auto") == expected
    # what is chosen is taken, whatever the processor
    assert training_precision("float32") == "float32"
    assert training_precision("bfloat16") == "bfloat16"


def test_torch_may_be_kept_from_what_the_processor_has(monkeypatch: pytest.MonkeyPatch) -> None:
    processor(monkeypatch, avx512=True, amx=True, capability="AVX2")
    assert training_precision("auto") == "float32"


def test_an_unknown_processor_trains_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name)
    assert not native_bfloat16()
    assert not native_bfloat16("mps")


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(TspruneError, match="unknown precision 'half'; one of: auto, float32, bfloat16"):
        training_precision("half")


def test_products_are_in_the_precision() -> None:
    matrix = torch.ones(4, 4)
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        with autocast(precision):  # type: ignore[arg-type]
            assert (matrix @ matrix).dtype == dtype


@pytest.mark.parametrize(
    ("positions", "plain"), [(None, False), (FEW_POSITIONS, True), (FEW_POSITIONS + 1, False)]
)
def test_attention_over_few_positions_is_by_plain_products_in_bfloat16(
    positions: int | None, plain: bool
) -> None:
    before = torch.backends.cuda.flash_sdp_enabled()
    with autocast("bfloat16", positions=positions):
        assert torch.backends.cuda.flash_sdp_enabled() is not plain
    with autocast("float32", positions=positions):
        assert torch.backends.cuda.flash_sdp_enabled() is before
    assert torch.backends.cuda.flash_sdp_enabled() is before
