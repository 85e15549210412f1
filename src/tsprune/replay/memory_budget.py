"""Bytes of a record per window, and the number of windows whose whole record fits into a budget."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import ArrayLike

from tsprune.arguments import UNLIMITED
from tsprune.models.forecaster import Forecaster, SamplingForecaster
from tsprune.replay.replay import Replay

_LEAST = 8  # windows; smaller batches lose more than a whole record gains
_TENSORS = 24  # more than a block and its sublayers keep per position, as vectors of the model's width

_measured: WeakKeyDictionary[Forecaster, dict[tuple[int, int], int]] = WeakKeyDictionary()


def record_bytes(model: Forecaster, contexts: Sequence[ArrayLike], horizon: int) -> int:
    """Bytes per window of the complete record of a clean pass, measured on `contexts`.

    Pass two to four of the longest windows. Tensors that do not grow with the batch (masks, position
    biases) are counted per window, so the estimate is slightly high.
    """
    replay = Replay(model, UNLIMITED)
    for _ in range(2):  # the first shows whether states need copies
        with replay.record("sample"):
            model.forecast(contexts, horizon)
    return -(-replay.nbytes // len(contexts))


def fitting_windows(
    model: Forecaster, contexts: Sequence[ArrayLike], horizon: int, most: int, memory: int
) -> int:
    """The number of windows, at most `most`, of which `memory` bytes hold the whole record.

    Steps of a forecast after the first pass read what was forecast before, so they do not count. It is
    `most` if fewer than `_LEAST` windows fit. Records are measured, once for every length and horizon,
    unless the sizes of the model show that they fit.

    contexts : histories of about the longest length; two are used
    """
    longest = max(map(np.size, contexts[:2]))
    if most <= _LEAST or most * _bound(model, longest, horizon) <= memory:
        return most
    once = min(horizon, max(model.prefix_steps, model.readout_horizon, model.reference_horizon))
    known = _measured.setdefault(model, {})
    if (longest, once) not in known:
        known[longest, once] = record_bytes(model, contexts[:2], once)
    fitting = memory // max(1, known[longest, once])
    return most if fitting < _LEAST else min(most, fitting)


def _bound(model: Forecaster, longest: int, horizon: int) -> int:
    """Bytes per window that a record does not exceed."""
    anatomy = model.anatomy
    samples = model.samples if isinstance(model, SamplingForecaster) else 1
    axis = anatomy.stacks[0].time
    positions = (longest + horizon) // (1 if axis is None else axis.span) + 8
    layers = sum(len(stack.blocks) for stack in anatomy.stacks)
    size = next(model.module.parameters()).element_size()
    return _TENSORS * samples * layers * positions * anatomy.d_model * size
