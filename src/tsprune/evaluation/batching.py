"""Batches: windows of similar length and horizon are forecast together, whichever configuration they are of.

A forecast of a few windows costs little less than one of many. The forecast of a window depends on its batch:
by rounding in every family (sums of another shape), and by more where padding enters the normalisation
(TimesFM). So batches are part of a protocol: the same configurations, context length and batch size always
give the same ones.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tsprune.arguments import checked
from tsprune.data.suite import Configuration

Rows = NDArray[np.int64]

# a history shorter than this share of its batch's longest would mostly be padding
SHORTEST_SHARE = 0.5
# steps; forecasts of shorter histories cost no less
SHORT = 128


@dataclasses.dataclass(frozen=True)
class Batch:
    """B windows to forecast together.

    configurations : int64 [B], the number of each window's configuration
    rows : int64 [B], its row within that configuration
    horizons : int64 [B], its steps to forecast
    views : its history, cut to the context length; read-only
    """

    configurations: Rows
    rows: Rows
    horizons: Rows
    views: tuple[NDArray[np.float32], ...]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def horizon(self) -> int:
        """The longest horizon, for which all windows are forecast."""
        return int(self.horizons.max())

    @property
    def contexts(self) -> list[NDArray[np.float32]]:
        """Fresh copies of the histories: upstream code may write to its input."""
        return [np.array(view, dtype=np.float32) for view in self.views]

    @cached_property
    def members(self) -> dict[int, Rows]:
        """Number of each configuration -> places of its windows in the batch, ascending."""
        return {int(n): np.flatnonzero(self.configurations == n) for n in np.unique(self.configurations)}

    @cached_property
    def members_by_horizon(self) -> dict[int, Rows]:
        """Each horizon -> places of its windows in the batch, ascending."""
        return {int(h): np.flatnonzero(self.horizons == h) for h in np.unique(self.horizons)}

    def wanted(self, forecasts: NDArray[np.floating]) -> NDArray[np.bool_]:
        """[B, 1, H], whether steps of forecasts [B, Q, H] are within the windows' own horizons."""
        steps: NDArray[np.bool_] = np.arange(forecasts.shape[-1]) < self.horizons[:, None, None]
        return steps

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of a model's input: the horizon, and the histories in their order."""
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
def shared_batches(
    configurations: Sequence[Configuration],
    *,
    context_length: int,
    batch_size: int,
    prefix_steps: int = 1,
    fitting: Callable[[Sequence[NDArray[np.float32]], int], int] | None = None,
) -> list[Batch]:
    """The windows that can be forecast, in batches of one horizon and similar length.

    prefix_steps : horizons up to this many steps count as one, see `Forecaster.prefix_steps`
    fitting : the most windows, at most `batch_size`, of a batch that begins with some histories, by their
        horizon; None: `batch_size`

    Horizons are in the order of the configurations, the windows of a horizon longest first. Every
    window is in exactly one batch, except those that `unforecastable` lists. The shortest history of a batch
    has at least `SHORTEST_SHARE` of the steps of its longest (or of `SHORT`). Ties keep the order of the
    configurations.

    Raises TspruneError if `context_length` or `batch_size` is not a whole number of at least 1.
    """
    by_horizon: dict[int, list[tuple[int, int]]] = {}
    for number, configuration in enumerate(configurations):
        windows = by_horizon.setdefault(max(configuration.horizon, prefix_steps), [])
        left_out = {row for row, _ in unforecastable(configuration, context_length)}
        windows += [(number, row) for row in range(len(configuration)) if row not in left_out]

    def length(window: tuple[int, int]) -> int:
        number, row = window
        return min(len(configurations[number].contexts[row]), context_length)

    def views_of(windows: Sequence[tuple[int, int]]) -> tuple[NDArray[np.float32], ...]:
        return tuple(configurations[n].contexts[row][-context_length:] for n, row in windows)

    found = []
    for windows in by_horizon.values():
        # longest first: a batch too large for memory fails at once, and estimates of the rest are safe
        windows.sort(key=lambda window: -length(window))
        start = 0
        while chosen := windows[start : start + batch_size]:
            chosen = chosen[: _similar([length(window) for window in chosen])]
            if fitting is not None:
                horizon = max(configurations[n].horizon for n, _ in chosen)
                chosen = chosen[: fitting(views_of(chosen), horizon)]
            start += len(chosen)
            numbers, rows = np.array(chosen, dtype=np.int64).T
            views = views_of(chosen)
            horizons = np.array([configurations[n].horizon for n in numbers], dtype=np.int64)
            found.append(Batch(numbers, rows, horizons, views))
    return found


def _similar(lengths: Sequence[int]) -> int:
    """The number of leading ones of the descending `lengths` that are similar enough to the first."""
    enough = (max(length, SHORT) >= SHORTEST_SHARE * lengths[0] for length in lengths)
    return sum(1 for _ in itertools.takewhile(bool, enough))


@checked
def unforecastable(configuration: Configuration, context_length: int) -> list[tuple[int, str]]:
    """(row, reason) of the windows without a known value among their last `context_length` steps."""
    reasons = []
    for row, context in enumerate(configuration.contexts):
        visible = context[-context_length:]
        if len(visible) == 0:
            reasons.append((row, "no history before the window"))
        elif not (np.isfinite(visible[-1]) or np.isfinite(visible).any()):
            reasons.append((row, f"no observed value in the last {len(visible)} steps of its history"))
    return reasons
