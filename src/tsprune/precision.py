"""Precision of training, chosen by the processor, and the Muon optimizer in that precision.

bfloat16 products are twice as fast as float32 ones where the processor has instructions for them, and 4 to 40
times slower where it has none (measured on CPUs with AVX2).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from tsprune.choices import AUTO, PRECISIONS, Precision
from tsprune.errors import TspruneError

# Keller Jordan, "Muon: An optimizer for hidden layers in neural networks" (2024), as in torch.optim.Muon
_COEFFICIENTS = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5
_LEAST_NORM = 1e-7
_MOMENTUM = 0.95


_WITHOUT_BFLOAT16 = ("DEFAULT", "NO AVX", "AVX2")  # torch's names of instruction sets


def native_bfloat16(device: torch.device | str = "cpu") -> bool:
    """Whether the device has instructions for products of bfloat16 matrices, and torch may use them.

    ATEN_CPU_CAPABILITY=avx2 keeps torch from them on a CPU that has them.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind != "cpu" or torch.backends.cpu.get_cpu_capability() in _WITHOUT_BFLOAT16:
        return False
    # private functions of torch, which may disappear: then training is in float32
    questions = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    return any(bool(question()) for question in questions if question is not None)


def training_precision(choice: str, device: torch.device | str = "cpu") -> Precision:
    """The precision of a training on `device`; "auto" decides by `native_bfloat16`.

    Raises TspruneError for an unknown choice.
    """
    if choice == AUTO:
        return "bfloat16" if native_bfloat16(device) else "float32"
    for precision in PRECISIONS:
        if choice == precision:
            return precision
    raise TspruneError(f"unknown precision {choice!r}; one of: {', '.join((AUTO, *PRECISIONS))}")


def autocast(precision: Precision, device: torch.device | str = "cpu") -> AbstractContextManager[Any]:
    """Within it, products are computed in `precision`; weights and sums stay float32."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, torch.bfloat16)


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Groups of rows (dim 0) or columns (dim 1) of a matrix, such as its heads.

    indices : int64 [blocks, rows a block]; together all rows, each once
    """

    dim: int
    indices: Tensor

    def split(self, matrix: Tensor) -> Tensor:
        """The blocks of a matrix, stacked: [blocks, rows, columns], with the rows or columns of a block."""
        count, size = self.indices.shape
        if self.dim == 0:
            return matrix[self.indices.flatten()].reshape(count, size, -1)
        return matrix[:, self.indices.flatten()].reshape(-1, count, size).transpose(0, 1)

    def joined(self, blocks: Tensor) -> Tensor:
        """The matrix that `split` gave these blocks of."""
        flat = blocks.flatten(0, 1) if self.dim == 0 else blocks.transpose(0, 1).flatten(1)
        return torch.empty_like(flat).index_copy_(self.dim, self.indices.flatten(), flat)


class Muon(torch.optim.Optimizer):
    """`torch.optim.Muon` with its iteration in the training's precision; torch's is always bfloat16.

    In bfloat16 the steps equal torch's with `adjust_lr_fn="match_rms_adamw"` to the last bit. On a CPU
    without bfloat16 instructions the iteration is 38 times faster in float32.

    params : matrices [rows, columns], or groups of them
    lr : learning rate of the matched AdamW: the update's root mean square is 0.2 times it
    blocks : matrices whose blocks are orthogonalised one by one, such as heads: less work, and no head's
        update depends on another's
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        precision: Precision,
        blocks: Mapping[Tensor, Blocks] | None = None,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self._dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
        self._blocks = blocks or {}
        if any(matrix.ndim != 2 for group in self.param_groups for matrix in group["params"]):
            raise ValueError("Muon trains matrices only")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    self._update(matrix, matrix.grad, group["lr"], group["weight_decay"])
        return loss

    def _update(self, matrix: Tensor, gradient: Tensor, rate: float, decay: float) -> None:
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        momentum: Tensor = state["momentum_buffer"]
        momentum.lerp_(gradient, 1 - _MOMENTUM)
        update = gradient.lerp(momentum, _MOMENTUM).to(self._dtype)
        blocks = self._blocks.get(matrix)
        parts = orthogonalised(update if blocks is None else blocks.split(update))
        matrix.mul_(1 - rate * decay)
        update = parts if blocks is None else blocks.joined(parts)
        matrix.add_(update, alpha=-rate * (0.2 * math.sqrt(max(parts.shape[-2:]))))


def orthogonalised(matrix: Tensor) -> Tensor:
    """Matrices [..., rows, columns] with singular values close to one, by a quintic Newton-Schulz iteration.

    In float32 the iteration of a matrix at least twice as wide as high acts on its Gram matrix: the same
    polynomial with 50 products of its small side where the direct one takes 90 (four times as wide).
    """
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if tall else matrix
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=_LEAST_NORM)
    wide = x.dtype == torch.float32 and x.shape[-1] >= 2 * x.shape[-2]
    x = _by_gram_matrix(x) if wide else _directly(x)
    return x.mT if tall else x


def _directly(x: Tensor) -> Tensor:
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = _sum(x, _sum(gram, gram, gram, b, c), x, a, 1)
    return x


def _by_gram_matrix(x: Tensor) -> Tensor:
    """The steps of `_directly`: all factors are polynomials in x @ x.T, so their product is applied last."""
    a, b, c = _COEFFICIENTS
    gram, product = x @ x.mT, None
    for left in reversed(range(_ITERATIONS)):
        factor = _sum(gram, gram, gram, b, c)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        product = factor if product is None else factor @ product
        if left:
            gram = factor @ gram @ factor
    assert product is not None
    return product @ x


def _sum(matrix: Tensor, left: Tensor, right: Tensor, beta: float, alpha: float) -> Tensor:
    """beta matrix + alpha left @ right, for matrices or batches of them."""
    add = torch.addmm if matrix.ndim == 2 else torch.baddbmm
    return add(matrix, left, right, beta=beta, alpha=alpha)
