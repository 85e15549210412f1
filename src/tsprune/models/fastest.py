"""The precision in which a model forecasts fastest on a device, measured."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from tsprune.models.forecaster import Forecaster
from tsprune.precision import native_bfloat16

_BATCH, _CONTEXT = 8, 512
_ROUNDS = 3
_WORTH = 0.9  # share of float32's time above which float32 stays, which is exact


def fastest(build: Callable[[], Forecaster], device: torch.device) -> Forecaster:
    """The model that `build` returns, on `device`, in bfloat16 if it forecasts in less time so, else float32.

    A CPU without instructions for bfloat16 is 4 to 40 times slower with it, so nothing is tried there, nor
    for a family whose upstream code runs in float32 only.

    build : returns the same model each time, in float32 on the CPU
    """
    plain = build()
    plain.to(device, torch.float32)
    if not (plain.half and native_bfloat16(device)):
        return plain
    half = build()
    half.to(device, torch.bfloat16)
    seconds = {id(model): np.inf for model in (plain, half)}
    for _ in range(1 + _ROUNDS):  # the first forecast of a model is slower than all others
        for model in (plain, half):
            seconds[id(model)] = min(seconds[id(model)], _seconds(model))
    return half if seconds[id(half)] < _WORTH * seconds[id(plain)] else plain


def _seconds(model: Forecaster) -> float:
    length = min(_CONTEXT, model.context_length)
    series = np.random.default_rng(0).standard_normal((_BATCH, length)).cumsum(1)
    start = time.perf_counter()
    model.forecast(list(series), model.prefix_steps)  # its quantiles are on the CPU, so it has ended
    return time.perf_counter() - start
