"""What a forecast costs wherever it runs: arithmetic, memory traffic and calls, counted and weighted.

Milliseconds differ from run to run, so a choice that is made by them cannot be repeated. Operations can
be counted exactly; but FLOPs alone leave out what narrow sublayers cost most, the reading and writing of
activations and the calls themselves. The estimate here adds up all three (a roofline without overlap;
Williams, Waterman & Patterson, Roofline, 2009) at the rates of one ordinary CPU core. Only the proportions
of the rates matter, and only for shares of a model's cost.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tsprune.cost.latency import flops

FLOPS_PER_SECOND = 5e10
BYTES_PER_SECOND = 1e10
SECONDS_PER_CALL = 5e-6
# how often an element of an attention map is written or read on the way: made, normalised, used
SCORE_PASSES = 6


@dataclasses.dataclass(frozen=True)
class Work:
    """What was counted.

    flops : of matrix products
    bytes : read and written by all operations that compute or copy, attention maps included
    calls : of such operations
    """

    flops: int
    bytes: int
    calls: int

    @property
    def seconds(self) -> float:
        """The estimate; see the module."""
        return self.flops / FLOPS_PER_SECOND + self.bytes / BYTES_PER_SECOND + self.calls * SECONDS_PER_CALL


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


def work(call: Callable[[], object]) -> Work:
    """What `call` makes torch do. It is called twice."""
    with _Traffic() as traffic:
        call()
    return Work(flops(call), traffic.bytes, traffic.calls)
