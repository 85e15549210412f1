"""Shared by measurements on windows: batches of a suite's windows, and means over rows of attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsprune.anatomy import Anatomy, Component, Stack
from tsprune.data.suite import Suite
from tsprune.evaluation.sampling import Owners, SampledWindows, over_batches, sampled
from tsprune.hooks.attention import AttentionMap
from tsprune.models.forecaster import Forecaster
from tsprune.progress import showing
from tsprune.run_options import RunOptions
from tsprune.statistics.estimate import Array

_Result = TypeVar("_Result")


def of_batches(
    work: Callable[[SampledWindows], _Result],
    model: Forecaster,
    suite: Suite,
    per_configuration: int,
    options: RunOptions,
    owners: Owners,
    stage: str,
) -> Iterator[_Result]:
    """Results of `work` on batches of the suite's sampled windows (see `over_batches`).

    A batch has a quarter of `options.batch_size` windows: maps and streams of whole passes are held.
    `owners` remembers where each window is from; `stage` is reported to `options.progress`.

    Raises TspruneError for a suite without windows.
    """
    suite.require_windows()
    chosen = sampled(suite, model, per_configuration)
    done = 0
    with showing(options.progress) as progress:
        progress(stage, 0, len(chosen))
        for batch, result in over_batches(work, chosen, model, max(1, options.batch_size // 4)):
            owners.add(batch)
            done += len(batch.contexts)
            progress(stage, done, len(chosen))
            yield result


def span_of(stack: Stack) -> int:
    """Time steps per position of a stack; 1 where the anatomy has no time axis."""
    return 1 if stack.time is None else stack.time.span


class RowMeans:
    """Means of numbers of attention rows, by attention sublayer and name: [windows, heads]."""

    def __init__(self, anatomy: Anatomy, windows: int) -> None:
        self._anatomy = anatomy
        self._windows = windows
        self._rows: dict[Component, int] = {}
        self._sums: dict[tuple[Component, str], tuple[Array, Array]] = {}

    def windows(self, found: AttentionMap) -> NDArray[np.int64]:
        """The window of each row of the next map of a sublayer, [N]: windows repeat pass after pass."""
        first = self._rows.get(found.component, 0)
        return (first + np.arange(len(found.weights))) % self._windows

    def add(self, found: AttentionMap, numbers: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Adds one map: name -> values [N, heads, Q] and bool, the ones that count."""
        windows, site = self.windows(found), found.component
        self._rows[site] = self._rows.get(site, 0) + len(windows)
        sums = [
            torch.stack([torch.where(counted, values, 0).sum(-1) for values, counted in numbers.values()]),
            torch.stack([counted.sum(-1) for _, counted in numbers.values()]),
        ]
        totals, counts = (x.numpy(force=True) for x in sums)  # [names, N, heads]
        for name, total, count in zip(numbers, totals, counts, strict=True):
            shape = (self._windows, total.shape[1])
            tables = self._sums.setdefault((site, name), (np.zeros(shape), np.zeros(shape)))
            for table, terms in zip(tables, (total, count), strict=True):
                np.add.at(table, windows, terms)

    def means(self, site: Component, name: str) -> Array:
        """[windows, heads]; NaN where no row of a head counts."""
        nothing = np.full((self._windows, self._anatomy.site(site).heads), np.nan)
        if (site, name) not in self._sums:
            return nothing
        total, count = self._sums[site, name]
        return np.asarray(np.divide(total, count, out=nothing, where=count > 0))
