"""Training histories for a recovery: synthetic ones, and ones cut from the series it is meant for.

A step has histories of one kind. Those of a suite come from its calibration windows, cut anywhere before
their targets; the variates of a multivariate window stay together where the model reads them so.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tsprune.data.suite import Configuration, Suite
from tsprune.evaluation.batching import ReadTogether
from tsprune.pruning.distillation import FloatArray, histories

_ROUNDING = 1e-6  # deviation of a series that does not vary, as a share of its size

_Rows = NDArray[np.int64]


def mixed_histories(
    suite: Suite,
    share: float,
    seed: int,
    first_step: int,
    batch_size: int,
    context_length: int,
    reading: ReadTogether,
) -> Iterator[list[FloatArray]]:
    """Endless batches of at most `batch_size` histories [T], one per step; a pure function of seed and step.

    share : probability that a step has histories of `suite`; the others are synthetic (`histories`)
    reading : with variates, histories of multivariate windows are [V, T]
    """
    for step, batch in enumerate(histories(seed, first_step, batch_size, context_length), start=first_step):
        rng = np.random.default_rng([seed, 3, step])
        own = rng.random() < share
        # a suite may have nothing but constant series: then the synthetic ones are taken
        yield (
            own and cut_histories(suite, batch_size, batch[0].shape[-1] if batch else 2, rng, reading)
        ) or batch


def cut_histories(
    suite: Suite, batch_size: int, length: int, rng: np.random.Generator, reading: ReadTogether
) -> list[FloatArray]:
    """Histories of `length` steps from the windows of one configuration, NaN in front of shorter ones.

    A configuration is drawn by its number of windows. Histories end anywhere in the contexts of its windows.
    Those that hardly vary are left out, so there may be fewer than `batch_size`, and none.
    """
    sizes = np.array([len(c) for c in suite.configurations], dtype=np.float64)
    configuration = suite.configurations[int(rng.choice(len(sizes), p=sizes / sizes.sum()))]
    contexts = _alike(configuration, rng, reading)
    count = max(2, batch_size // len(contexts[0]))
    found = [_cut(configuration, rows, length, rng) for rows in rng.choice(contexts, count)]
    varying = [history for history in found if _varies(history)]
    return varying if len(varying) > 1 else []


def _alike(
    configuration: Configuration, rng: np.random.Generator, reading: ReadTogether
) -> NDArray[np.int64]:
    """Rows [contexts, V] of contexts with as many variates as a random one."""
    rows = configuration.together if reading.variates else list(np.arange(len(configuration))[:, None])
    variates = len(rows[int(rng.integers(len(rows)))])
    return np.stack([each for each in rows if len(each) == variates])


def _cut(configuration: Configuration, rows: _Rows, length: int, rng: np.random.Generator) -> FloatArray:
    """A history [T], or [V, T] of several rows, that ends at a random step of their contexts."""
    series = [configuration.contexts[int(row)] for row in rows]
    before = int(rng.integers(max(1, min(map(len, series)) - length // 2)))  # steps cut off at the end
    history = np.full((len(series), length), np.nan, dtype=np.float32)
    for values, context in zip(history, series, strict=True):
        visible = context[max(0, len(context) - before - length) : len(context) - before]
        values[length - len(visible) :] = np.where(np.isfinite(visible), visible, np.nan)
    return history[0] if len(history) == 1 else history


def _varies(history: FloatArray) -> bool:
    """Whether every variate has known values that differ by more than rounding."""
    known = np.isfinite(history)
    if not (known.sum(-1) > 1).all():
        return False
    size = np.nanmax(np.abs(history), axis=-1)
    return bool((np.nanstd(history.astype(np.float64), axis=-1) > _ROUNDING * size).all())
