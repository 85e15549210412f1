"""Milliseconds per forecast of two models, measured in turns, with their arithmetic and memory.

Forecasts of the two models alternate, and their order is swapped every round (A B, B A, A B, ...), so that
disturbances of the machine affect both alike. Medians have the distribution-free 95 % interval of order
statistics. The ratio is taken round by round, so its interval excludes disturbances that both share.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tsprune.arguments import checked
from tsprune.cost.flops import flops
from tsprune.errors import TspruneError
from tsprune.models.forecast import Predictor
from tsprune.models.forecaster import Forecaster
from tsprune.schema import Column, Schema

LATENCY = Schema(
    "latency",
    Column("model", "name of the model", dtype="text"),
    Column("batch", "windows forecast together", dtype="count"),
    Column("ms", "median of one forecast of the batch", "ms"),
    Column("ms_low", "lower limit of the median's 95 % interval", "ms"),
    Column("ms_high", "upper limit of the median's 95 % interval", "ms"),
    Column("time_ratio", "time of the second model divided by that of the first, in both rows"),
    Column("time_ratio_low", "lower limit of the ratio's 95 % interval"),
    Column("time_ratio_high", "upper limit of the ratio's 95 % interval"),
    Column("parameters", "number of parameters", dtype="count"),
    Column(
        "gflops",
        "matrix products of one forecast of the batch; exported models: unknown",
        "GFLOP",
    ),
    Column("weights_mb", "size of the weights", "MiB"),
    Column("peak_mb", "most memory that tensors of one forecast hold at once, without weights", "MiB"),
)


def median_interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float, float]:
    """(median, low, high) of values [N], by order statistics.

    The limits are the narrowest pair, symmetric in rank, that encloses the population's median with at least
    this probability; the extremes, if there are too few values.

    >>> median_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0])
    (5.5, 2.0, 9.0)
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    # values r and n+1-r enclose it unless fewer than r lie on one side of it
    rank = max(1, int(binom.ppf((1 - level) / 2, len(ordered), 0.5)))
    return float(np.median(ordered)), float(ordered[rank - 1]), float(ordered[-rank])


def in_turns(first: Callable[[], object], second: Callable[[], object], rounds: int) -> NDArray[np.float64]:
    """Seconds of calls taken in turns, A B, B A, A B, ...: [2, rounds].

    Calls return their results in host memory, as forecasts do: nothing else waits for an accelerator.
    """
    seconds = np.empty((2, rounds))
    for index in range(rounds):
        for place in (0, 1) if index % 2 == 0 else (1, 0):
            start = time.perf_counter()
            (first, second)[place]()
            seconds[place, index] = time.perf_counter() - start
    return seconds


def timed_in_turns(
    model: Forecaster | Timed,
    other: Forecaster | Timed,
    *,
    batch: int,
    context: int,
    horizon: int,
    rounds: int,
) -> NDArray[np.float64]:
    """Seconds [2, rounds] of forecasts of a batch of random walks, by two models in turns.

    Each forecasts once before, since first forecasts allocate.
    """
    calls = [forecast_of_walks(one, batch, context, horizon) for one in (model, other)]
    for call in calls:
        call()
    return in_turns(calls[0], calls[1], rounds)


def forecast_of_walks(
    model: Forecaster | Timed, batch: int, context: int, horizon: int
) -> Callable[[], object]:
    """The call that is timed: a forecast of `batch` random walks of `context` steps."""
    walks = np.random.default_rng(0).standard_normal((batch, context)).cumsum(1).astype(np.float32)
    return partial(model.forecast, list(walks), horizon)


class _LiveTensors(TorchDispatchMode):
    """Tracks the bytes of tensors made while it lasts, and the most that are alive at once."""

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
    """The most bytes that tensors made in `call` hold at once, without weights and kernels' workspace."""
    live = _LiveTensors()
    with live:
        call()
    return live.peak


class Timed(Predictor, Protocol):
    """A model without a torch module, as exported ones are; its operations and tensors are not counted.

    horizon : the most steps that it forecasts
    weight_bytes : size of its weights
    """

    @property
    def parameter_count(self) -> int: ...

    @property
    def horizon(self) -> int: ...

    weight_bytes: int


@checked
def compare_latency(
    model: Forecaster | Timed,
    other: Forecaster | Timed,
    *,
    batches: Sequence[int] = (1, 64),
    context: int = 512,
    horizon: int = 64,
    rounds: int = 30,
) -> pd.DataFrame:
    """Times forecasts of two models; two rows per batch size, `model` then `other`.

    context, horizon : steps of the random walks that are forecast, and of their forecast
    rounds : timed forecasts of each

    Returns the columns of `LATENCY`. Raises TspruneError for fewer than 2 rounds.
    """
    if rounds < 2:
        raise TspruneError(f"a comparison needs at least 2 rounds, not {rounds}")
    rows = []
    for batch in batches:
        calls = [forecast_of_walks(one, batch, context, horizon) for one in (model, other)]
        sizes = [_size(*pair) for pair in zip((model, other), calls, strict=True)]
        seconds = in_turns(calls[0], calls[1], rounds)
        ratio = with_limits("time_ratio", seconds[1] / seconds[0])
        for forecaster, taken, size in zip((model, other), seconds, sizes, strict=True):
            row = {"model": forecaster.name, "batch": batch} | with_limits("ms", taken * 1000)
            rows.append(row | ratio | size)
    return LATENCY.frame(rows)


def with_limits(name: str, values: ArrayLike) -> dict[str, float]:
    """The columns of a median of values [N]: `name`, `name_low` and `name_high` of its 95 % interval."""
    return dict(zip((name, f"{name}_low", f"{name}_high"), median_interval(values), strict=True))


def _size(model: Forecaster | Timed, call: Callable[[], object]) -> dict[str, float]:
    if not isinstance(model, Forecaster):
        call()  # the first one allocates, and may compile; those of others are called to be counted
        weights, unknown = model.weight_bytes / 2**20, float("nan")
        return {
            "parameters": model.parameter_count,
            "gflops": unknown,
            "weights_mb": weights,
            "peak_mb": unknown,
        }
    return {
        "parameters": model.parameter_count,
        "gflops": flops(call) / 1e9,
        "weights_mb": sum(p.nbytes for p in model.module.parameters()) / 2**20,
        "peak_mb": peak_bytes(call) / 2**20,
    }


def machine() -> str:
    """The conditions of the times, in one line."""
    return f"{os.cpu_count()} cores, {torch.get_num_threads()} torch threads, torch {torch.__version__}"
