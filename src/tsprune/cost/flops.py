"""Arithmetic, memory traffic and calls of a forecast, counted, and their estimated time.

Milliseconds differ from run to run, so a choice made by them cannot be repeated. Operations can be counted
exactly, but FLOPs alone omit the largest costs of narrow sublayers: reading and writing activations, and the
calls themselves. The estimate adds up all three (a roofline without overlap; Williams, Waterman & Patterson,
Roofline, 2009) at the rates of one ordinary CPU core. Only the proportions of the rates matter, and only for
shares of a model's cost.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

FLOPS_PER_SECOND = 5e10
BYTES_PER_SECOND = 1e10
SECONDS_PER_CALL = 5e-6
# reads and writes of each element of an attention map: made, normalised, used
SCORE_PASSES = 6


@dataclasses.dataclass(frozen=True)
class Work:
    """Counted work.

    flops : of matrix products
    bytes : read and written by all operations that compute or copy, attention maps included
    calls : of such operations
    """

    flops: int
    bytes: int
    calls: int

    @property
    def seconds(self) -> float:
        """The estimated time."""
        return self.flops / FLOPS_PER_SECOND + self.bytes / BYTES_PER_SECOND + self.calls * SECONDS_PER_CALL


def flops(call: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products in `call`, including those of attention.

    They are torch's counts; torch itself counts the fused attention of GPUs, but not that of CPUs.
    """
    return work(call).flops


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """FLOPs of fused attention, from the shapes [B, heads, queries or keys, head_dim] of its inputs."""
    return int(sdpa_flop_count(query, key, value))


_FUSED = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}


def work(call: Callable[[], object]) -> Work:
    """The work of torch in `call`."""
    # the traffic is counted first: the other mode takes some operations apart
    with FlopCounterMode(display=False, custom_mapping=_FUSED) as counter, _Traffic() as traffic:
        call()
    return Work(int(counter.get_total_flops()), traffic.bytes, traffic.calls)


def work_of_batch(call: Callable[[int], object], batch: int) -> Work:
    """The work of `call(batch)`, extrapolated from 2 and 4 windows, because each window adds the same.

    Models that draw samples for a part of the batch at a time make more calls than that.
    """
    few, more = (dataclasses.astuple(work(partial(call, size))) for size in (2, 4))
    return Work(*(b + (batch - 4) * (b - a) // 2 for a, b in zip(few, more, strict=True)))


class _Traffic(TorchDispatchMode):
    """Counts bytes and calls while it lasts."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view and func.name() != "aten::_unsafe_view":
            tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor)]
            self.bytes += sum(x.numel() * x.element_size() for x in tensors)
            self.calls += 1
            if "scaled_dot_product" in func.name():
                query, key = args[0], args[1]
                scores = query.numel() // query.shape[-1] * key.shape[-2]
                self.bytes += SCORE_PASSES * scores * query.element_size()
        return result
