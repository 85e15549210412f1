"""Which windows are forecast together: those of similar length and horizon, whatever they are of.

A forecast of a few windows costs little less than one of many, so windows of several configurations
share batches. What a model answers depends on its batch: to rounding in every family (sums of another
shape), and beyond that where padding enters the normalisation (TimesFM). So batches are part of a
protocol: the same configurations, context length and batch size always give the same ones.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tsprune.arguments import checked
from tsprune.data.suite import Configuration

Rows = NDArray[np.int64]

# a history shorter than this share of its batch's longest would mostly be padding
SHORTEST_SHARE = 0.5
# steps; what is shorter costs as much, since most of it is the cost of any forecast
SHORT = 128


@dataclasses.dataclass(frozen=True)
class Batch:
    """Windows to forecast together.

    configurations : int64 [B], the number of the configuration that each window is of
    rows : int64 [B], which window of that configuration it is
    horizons : int64 [B], steps to forecast of each
    views : their histories, cut to the context length; not to be written to
    """

    configurations: Rows
    rows: Rows
    horizons: Rows
    views: tuple[NDArray[np.float32], ...]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def horizon(self) -> int:
        """Steps that all of them are forecast for: the most."""
        return int(self.horizons.max())

    @property
    def contexts(self) -> list[NDArray[np.float32]]:
        """Fresh copies of the histories: upstream code may write to what it is given."""
        return [np.array(view, dtype=np.float32) for view in self.views]

    @cached_property
    def members(self) -> dict[int, Rows]:
        """Number of each configuration -> places of its windows in the batch, ascending."""
        return {
            int(number): np.flatnonzero(self.configurations == number)
            for number in np.unique(self.configurations)
        }

    @cached_property
    def members_by_horizon(self) -> dict[int, Rows]:
        """Each horizon -> places of its windows in the batch, ascending."""
        return {int(h): np.flatnonzero(self.horizons == h) for h in np.unique(self.horizons)}

    def wanted(self, forecasts: NDArray[np.floating]) -> NDArray[np.bool_]:
        """[B, 1, H], which steps of forecasts [B, Q, H] are within the windows' own horizons."""
        steps: NDArray[np.bool_] = np.arange(forecasts.shape[-1]) < self.horizons[:, None, None]
        return steps

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what a model is given: the horizon, and the histories in their order."""
        digest = hashlib.sha256(f"{self.horizon}".encode())
        for view in self.views:
            digest.update(f"|{len(view)}".encode())
            digest.update(np.ascontiguousarray(view).data)
        return digest.hexdigest()

    def select(self, places: Iterable[int]) -> Batch:
        """The windows at some places, in that order."""
        chosen = [int(place) for place in places]
        views = tuple(self.views[place] for place in chosen)
        return Batch(self.configurations[chosen], self.rows[chosen], self.horizons[chosen], views)


@checked
def batches(configuration: Configuration, *, context_length: int, batch_size: int) -> list[Batch]:
    """`shared_batches` of one configuration alone, whose number is 0."""
    return shared_batches([configuration], context_length=context_length, batch_size=batch_size)


@checked
def shared_batches(
    configurations: Sequence[Configuration], *, context_length: int, batch_size: int, prefix_steps: int = 1
) -> list[Batch]:
    """The windows that can be forecast, in batches of like horizon and similar length.

    prefix_steps : horizons up to this many steps count as one, see `Forecaster.prefix_steps`

    Horizons are in the order of the configurations, the windows of a horizon longest first. Every
    window is in exactly one batch but for those that `unforecastable` lists. In a batch, the shortest
    history is at least `SHORTEST_SHARE` of the longest (as many steps as that, or `SHORT`). Ties keep
    the order of the configurations, so the same arguments give the same batches.

    Raises TspruneError if `context_length` or `batch_size` is no whole number of at least 1.
    """
    by_horizon: dict[int, list[tuple[int, int]]] = {}
    for number, configuration in enumerate(configurations):
        windows = by_horizon.setdefault(max(configuration.horizon, prefix_steps), [])
        left_out = {row for row, _ in unforecastable(configuration, context_length)}
        windows += [(number, row) for row in range(len(configuration)) if row not in left_out]

    def length(window: tuple[int, int]) -> int:
        number, row = window
        return min(len(configurations[number].contexts[row]), context_length)

    found = []
    for windows in by_horizon.values():
        # longest first: what does not fit into memory fails at once, and estimates of the rest are safe
        windows.sort(key=lambda window: -length(window))
        for part in _parts([length(window) for window in windows], batch_size):
            chosen = windows[part]
            numbers, rows = np.array(chosen, dtype=np.int64).T
            views = tuple(configurations[n].contexts[row][-context_length:] for n, row in chosen)
            horizons = np.array([configurations[n].horizon for n in numbers], dtype=np.int64)
            found.append(Batch(numbers, rows, horizons, views))
    return found


def _parts(lengths: Sequence[int], batch_size: int) -> Iterator[slice]:
    """Slices of at most `batch_size` of the descending `lengths` that are similar enough."""
    start = 0
    for place, length in enumerate(lengths):
        too_short = max(length, SHORT) < SHORTEST_SHARE * lengths[start]
        if too_short or place - start == batch_size:
            yield slice(start, place)
            start = place
    if lengths:
        yield slice(start, len(lengths))


@checked
def unforecastable(configuration: Configuration, context_length: int) -> list[tuple[int, str]]:
    """(row, reason) of the windows no model can forecast from their last `context_length` steps."""
    reasons = []
    for row, context in enumerate(configuration.contexts):
        visible = context[-context_length:]
        if len(visible) == 0:
            reasons.append((row, "no history before the window"))
        elif not (np.isfinite(visible[-1]) or np.isfinite(visible).any()):
            reasons.append((row, f"no observed value in the last {len(visible)} steps of its history"))
    return reasons
