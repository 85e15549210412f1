"""Milliseconds per forecast of two models, measured in turns, with what they compute and hold.

A forecast of one model is timed, then one of the other, and so on, with the order of the two swapped
every round (A B, B A, A B, ...), so that whatever else the machine does falls on both alike. Medians
get the distribution-free 95 % interval of order statistics; the ratio of the two is taken round by
round, so its interval does not contain what both share.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import binom
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from tsprune.arguments import checked
from tsprune.errors import TspruneError
from tsprune.models.forecaster import Forecaster

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

Array = NDArray[np.float64]


def median_interval(values: Sequence[float] | Array, level: float = 0.95) -> tuple[float, float, float]:
    """(median, low, high): the narrowest pair of order statistics, symmetric in rank, that holds the
    median of the population with at least this probability (the extremes, if there are too few).

    >>> median_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0])
    (5.5, 2.0, 9.0)
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    # values r and n+1-r enclose it unless fewer than r lie on one side of it
    rank = max(1, int(binom.ppf((1 - level) / 2, len(ordered), 0.5)))
    return float(np.median(ordered)), float(ordered[rank - 1]), float(ordered[-rank])


def in_turns(first: Callable[[], object], second: Callable[[], object], rounds: int) -> tuple[Array, Array]:
    """Seconds of `rounds` calls of each, taken in turns: A B, B A, A B, ..."""
    seconds = np.empty((2, rounds))
    calls = (first, second)
    for index in range(rounds):
        for which in (0, 1) if index % 2 == 0 else (1, 0):
            _synchronise()
            start = time.perf_counter()
            calls[which]()
            _synchronise()
            seconds[which, index] = time.perf_counter() - start
    return seconds[0], seconds[1]


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def flops(call: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products in `call`, those of attention included.

    As torch counts them; torch itself knows the fused attention of GPUs, but not that of CPUs.
    """
    with FlopCounterMode(display=False, custom_mapping=_FUSED) as counter:
        call()
    return int(counter.get_total_flops())


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Of the shapes [B, heads, queries or keys, head_dim] of what fused attention is given."""
    return int(sdpa_flop_count(query, key, value))


_FUSED = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}


class _LiveTensors(TorchDispatchMode):
    """While it lasts, the bytes that tensors made meanwhile hold, and the most they held at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now: int = 0
        self.peak: int = 0
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {x.untyped_storage().data_ptr() for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in given:
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        if storage not in self._seen:
            self._seen.add(storage)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, storage.nbytes())

    def _gone(self, nbytes: int) -> None:
        self.now -= nbytes


def peak_bytes(call: Callable[[], object]) -> int:
    """The most bytes that tensors made in `call` hold at once (weights and kernels' workspace excluded)."""
    live = _LiveTensors()
    with live:
        call()
    return live.peak


@checked
def compare_latency(
    model: Forecaster,
    other: Forecaster,
    *,
    batches: Sequence[int] = (1, 64),
    context: int = 512,
    horizon: int = 64,
    rounds: int = 30,
) -> pd.DataFrame:
    """Two rows a batch size, `model` then `other`.

    context, horizon : steps of the random walks that are forecast, and of their forecast
    rounds : timed forecasts of each

    Columns: model, batch, ms with ms_low and ms_high (95 % interval of the median), ratio with
    ratio_low and ratio_high (of `other` to `model`, the same in both rows), parameters, gflops (of one
    forecast of the batch; matrix products only), weights_mb, and peak_mb (the most that tensors made
    during one forecast hold at once, beside the weights).

    Raises TspruneError for fewer than 2 rounds.
    """
    if rounds < 2:
        raise TspruneError(f"a comparison needs at least 2 rounds, not {rounds}")
    rows = []
    for batch in batches:
        series = list(np.random.default_rng(0).standard_normal((batch, context)).cumsum(1).astype(np.float32))
        calls = [_call(forecaster, series, horizon) for forecaster in (model, other)]
        sizes = []
        for forecaster, call in zip((model, other), calls, strict=True):
            sizes.append(
                {
                    "parameters": forecaster.parameter_count,
                    "gflops": flops(call) / 1e9,
                    "weights_mb": sum(p.nbytes for p in forecaster.module.parameters()) / 2**20,
                    "peak_mb": peak_bytes(call) / 2**20,
                }
            )
        seconds = in_turns(calls[0], calls[1], rounds)
        ratio = dict(
            zip(("ratio", "ratio_low", "ratio_high"), median_interval(seconds[1] / seconds[0]), strict=True)
        )
        for forecaster, taken, size in zip((model, other), seconds, sizes, strict=True):
            median = dict(zip(("ms", "ms_low", "ms_high"), median_interval(taken * 1000), strict=True))
            rows.append({"model": forecaster.name, "batch": batch, **median, **ratio, **size})
    return pd.DataFrame(rows)


def _call(model: Forecaster, series: list[NDArray[np.float32]], horizon: int) -> Callable[[], object]:
    return lambda: model.forecast(series, horizon)


def machine() -> str:
    """What the times depend on, in one line."""
    return f"{os.cpu_count()} cores, {torch.get_num_threads()} torch threads, torch {torch.__version__}"
