"""Precision of training, chosen by the processor, and the Muon optimizer in that precision.

bfloat16 products are twice as fast as float32 ones where the processor has instructions for them, and 4 to 40
times slower where it has none (measured on CPUs with AVX2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

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


FEW_POSITIONS = (
    128  # positions up to which attention without a fused kernel has the faster gradients in bfloat16
)


@contextmanager
def autocast(
    precision: Precision, device: torch.device | str = "cpu", *, positions: int | None = None
) -> Iterator[None]:
    """Within it, products are computed in `precision`; weights and sums stay float32.

    positions : the longest sequence that attention sees. Up to `FEW_POSITIONS` of them, gradients of
        torch's fused attention in bfloat16 take a CPU 2.5 to 15 times as long as those of plain products,
        which replace it (CPU ms of 16 x 8 heads of 64: 15 to 3 at 33 positions, 60 to 22 at 128, 64 to 90
        with 4 x 8 at 512).
    """
    kind = torch.device(device).type
    with ExitStack() as stack:
        if precision != "float32":
            stack.enter_context(torch.autocast(kind, torch.bfloat16))
            if kind == "cpu" and positions is not None and positions <= FEW_POSITIONS:
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield


class Muon(torch.optim.Optimizer):
    """`torch.optim.Muon` with its iteration in the training's precision; torch's is always bfloat16.

    In bfloat16 the steps equal torch's with `adjust_lr_fn="match_rms_adamw"` to the last bit. On a CPU
    without bfloat16 instructions the iteration is 38 times faster in float32.

    params : matrices [rows, columns], or groups of them
    lr : learning rate of the matched AdamW: the update's root mean square is 0.2 times it
    """

    def __init__(
        self, params: Iterable[Any], *, lr: float = 1e-3, weight_decay: float = 0.0, precision: Precision
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self._dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
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
        update = orthogonalised(gradient.lerp(momentum, _MOMENTUM).to(self._dtype))
        matrix.mul_(1 - rate * decay)
        matrix.add_(update, alpha=-rate * (0.2 * math.sqrt(max(matrix.shape))))


def orthogonalised(matrix: Tensor) -> Tensor:
    """A matrix with its singular values moved close to one, by a quintic Newton-Schulz iteration.

    In float32 the iteration of a matrix at least twice as wide as high acts on its Gram matrix: the same
    polynomial for 50 products of its small side where the direct one takes 90 (four times as wide).
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=_LEAST_NORM)
    wide = x.dtype == torch.float32 and x.shape[1] >= 2 * x.shape[0]
    x = _by_gram_matrix(x) if wide else _directly(x)
    return x.T if tall else x


def _directly(x: Tensor) -> Tensor:
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _by_gram_matrix(x: Tensor) -> Tensor:
    """The steps of `_directly`: all factors are polynomials in x @ x.T, so their product is applied last."""
    a, b, c = _COEFFICIENTS
    gram, product = x @ x.T, None
    for left in reversed(range(_ITERATIONS)):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        product = factor if product is None else factor @ product
        if left:
            gram = factor @ gram @ factor
    assert product is not None
    return product @ x
