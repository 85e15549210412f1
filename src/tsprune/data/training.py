"""Training windows cut from synthetic series, a pure function of (seed, step).

The bundled checkpoints are trained on them (`pretrain/`), and pruned ones recover on them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tsprune.data.synthetic import Content, series

SERIES_PER_SHARD = 1024
WINDOWS_PER_SERIES = 8
CLIP = 12.0  # in standard deviations of the window

Windows = NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Source:
    """The synthetic series that training windows are cut from.

    content : the kinds of series
    shards : number of sets of `SERIES_PER_SHARD` series, used in turn; None makes new series without end
    """

    content: Content = "all"
    shards: int | None = None


ALL_SERIES = Source()


def _cut(pool: Windows, count: int, length: int, rng: np.random.Generator) -> Windows:
    rows = rng.integers(0, len(pool), count)
    starts = rng.integers(0, pool.shape[1] - length + 1, count)
    return np.asarray(pool[rows[:, None], starts[:, None] + np.arange(length)])


def draw(pool: Windows, count: int, length: int, rng: np.random.Generator) -> Windows:
    """Up to `count` windows [<= count, length] from `pool` [series, time].

    A third are mixtures of two windows, half are flipped in sign. Windows that hardly vary are dropped:
    after standardisation they would dominate the loss.
    """
    x = _cut(pool, count, length, rng)
    mixed = rng.random((count, 1)) < 0.35
    weight = rng.uniform(0.3, 0.9, (count, 1))
    x = np.where(mixed, weight * x + (1 - weight) * _cut(pool, count, length, rng), x)
    x = x * rng.choice([-1.0, 1.0], (count, 1))
    deviation = x.std(axis=1, keepdims=True)
    varies = deviation[:, 0] > 0.02
    x = (x - x.mean(axis=1, keepdims=True))[varies] / deviation[varies]
    return np.asarray(np.clip(x, -CLIP, CLIP), dtype=np.float32)


@functools.lru_cache(maxsize=2)  # searches and recoveries of one process begin with the same series
def _pool(seed: int, shard: int, count: int, length: int, content: Content) -> Windows:
    """The series [count, length] of a shard, read-only."""
    pool = series(count, length, np.random.default_rng([seed, 0, shard]), content)
    pool.flags.writeable = False
    return pool


def batches(
    seed: int, first_step: int, batch_size: int, length: int, series_length: int, source: Source = ALL_SERIES
) -> Iterator[Windows]:
    """Endless batches [<= batch_size, length] from `first_step` on, the same as in an uninterrupted run."""
    per_shard = max(1, SERIES_PER_SHARD * WINDOWS_PER_SERIES // batch_size)
    step = first_step
    while True:
        shard = step // per_shard
        drawn = shard if source.shards is None else shard % source.shards
        pool = _pool(seed, drawn, SERIES_PER_SHARD, series_length, source.content)
        while step // per_shard == shard:
            yield draw(pool, batch_size, length, np.random.default_rng([seed, 1, step]))
            step += 1
