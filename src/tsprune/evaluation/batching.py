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
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tsprune.arguments import checked
from tsprune.data.suite import Configuration, rows_by
from tsprune.models.contexts import CovariateContext

Rows = NDArray[np.int64]

# a history shorter than this share of its batch's longest would mostly be padding
SHORTEST_SHARE = 0.5
# steps; forecasts of shorter histories cost no less
SHORT = 128


class ReadTogether(NamedTuple):
    """Whether a model reads other variates and past covariates together with a series."""

    variates: bool = False
    covariates: bool = False


SINGLE = ReadTogether()


def reading_of(model: object) -> ReadTogether:
    """The reading of a Forecaster; single series of anything else that forecasts."""
    return ReadTogether(getattr(model, "multivariate", False), getattr(model, "past_covariates", False))


@dataclasses.dataclass(frozen=True)
class Batch:
    """B windows to forecast together.

    configurations : int64 [B], the number of each window's configuration
    rows : int64 [B], its row within that configuration
    horizons : int64 [B], its steps to forecast
    views : its history, cut to the context length; read-only
    groups : int64 [B], ascending; windows of one number are variates of one context. None: none are
    covariates : past covariates [C, T] of each, read-only; None without any
    """

    configurations: Rows
    rows: Rows
    horizons: Rows
    views: tuple[NDArray[np.float32], ...]
    groups: Rows | None = None
    covariates: tuple[NDArray[np.float32], ...] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def horizon(self) -> int:
        """The longest horizon, for which all windows are forecast."""
        return int(self.horizons.max())

    @cached_property
    def together(self) -> list[Rows]:
        """The places of the windows of each context."""
        return list(np.arange(len(self))[:, None]) if self.groups is None else rows_by(self.groups)

    @property
    def contexts(self) -> list[ArrayLike]:
        """Fresh copies of the histories, [T], or [V, T] of a group: upstream code may write to its input."""
        return [self._context(places) for places in self.together]

    def _context(self, places: Rows) -> ArrayLike:
        target = _stacked([self.views[place] for place in places])
        if self.covariates is None:
            return target
        past = max((self.covariates[place] for place in places), key=np.size)
        return CovariateContext(target, past) if len(past) else target

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
        if self.groups is not None:
            digest.update(self.groups.data)
        for past in self.covariates or ():
            digest.update(f"|{past.shape}".encode())
            digest.update(np.ascontiguousarray(past).data)
        for view in self.views:
            digest.update(f"|{len(view)}".encode())
            digest.update(np.ascontiguousarray(view).data)
        return digest.hexdigest()

    def select(self, places: Iterable[int]) -> Batch:
        """The windows at some places, in that order."""
        chosen = [int(place) for place in places]
        views = tuple(self.views[place] for place in chosen)
        groups = None if self.groups is None else self.groups[chosen]
        past = None if self.covariates is None else tuple(self.covariates[place] for place in chosen)
        return Batch(
            self.configurations[chosen], self.rows[chosen], self.horizons[chosen], views, groups, past
        )


@checked
def shared_batches(
    configurations: Sequence[Configuration],
    *,
    context_length: int,
    batch_size: int,
    prefix_steps: int = 1,
    fitting: Callable[[Sequence[ArrayLike], int], int] | None = None,
    reading: ReadTogether = SINGLE,
) -> list[Batch]:
    """The windows that can be forecast, in batches of one horizon and similar length.

    prefix_steps : horizons up to this many steps count as one, see `Forecaster.prefix_steps`
    fitting : the most contexts of a batch that begins with some, by these and their horizon; None: as many as
        have `batch_size` windows
    reading : whether the variates of a window become one context, and whether it has its past covariates. The
        contexts of a batch have equal numbers of both, and exceed `batch_size` windows only if a single one
        does

    Horizons are in the order of the configurations, the windows of a horizon longest first. Every
    window is in exactly one batch, except those that `unforecastable` lists. The shortest history of a batch
    has at least `SHORTEST_SHARE` of the steps of its longest (or of `SHORT`). Ties keep the order of the
    configurations.

    Raises TspruneError if `context_length` or `batch_size` is not a whole number of at least 1.
    """
    alike: dict[tuple[int, int, int], list[tuple[int, Rows]]] = {}  # by horizon, variates, covariates
    for number, configuration in enumerate(configurations):
        left_out = [row for row, _ in unforecastable(configuration, context_length)]
        split = configuration if reading.variates else dataclasses.replace(configuration, groups=None)
        covariates = configuration.num_covariates if reading.covariates else 0
        for rows in split.together:
            usable = rows[~np.isin(rows, left_out)] if left_out else rows
            if len(usable):
                key = max(configuration.horizon, prefix_steps), len(usable), covariates
                alike.setdefault(key, []).append((number, usable))

    def length(context: tuple[int, Rows]) -> int:
        number, rows = context
        return min(max(len(configurations[number].contexts[row]) for row in rows), context_length)

    found = []
    for (_, variates, covariates), contexts in alike.items():
        # longest first: a batch too large for memory fails at once, and estimates of the rest are safe
        contexts.sort(key=lambda context: -length(context))
        start = 0
        while chosen := contexts[start : start + max(1, batch_size // (variates + covariates))]:
            chosen = chosen[: _similar([length(context) for context in chosen])]
            if fitting is not None:
                batch = _batch(configurations, chosen, context_length, covariates)
                chosen = chosen[: fitting(batch.contexts, batch.horizon)]
            start += len(chosen)
            found.append(_batch(configurations, chosen, context_length, covariates))
    return found


def _similar(lengths: Sequence[int]) -> int:
    """The number of leading ones of the descending `lengths` that are similar enough to the first."""
    enough = (max(length, SHORT) >= SHORTEST_SHARE * lengths[0] for length in lengths)
    return sum(1 for _ in itertools.takewhile(bool, enough))


def _batch(
    configurations: Sequence[Configuration],
    chosen: Sequence[tuple[int, Rows]],
    context_length: int,
    covariates: int,
) -> Batch:
    """The batch of some contexts: number of the configuration, and rows in it."""
    numbers = np.repeat([number for number, _ in chosen], [len(rows) for _, rows in chosen])
    rows = np.concatenate([rows for _, rows in chosen])
    pairs = list(zip(numbers, rows, strict=True))
    views = tuple(configurations[n].contexts[row][-context_length:] for n, row in pairs)
    past = None
    if covariates:
        past = tuple((configurations[n].covariates or ())[row][:, -context_length:] for n, row in pairs)
    horizons = np.array([configurations[n].horizon for n in numbers], dtype=np.int64)
    groups = np.repeat(np.arange(len(chosen)), [len(rows) for _, rows in chosen])
    return Batch(numbers, rows, horizons, views, groups if len(groups) > len(chosen) else None, past)


def _stacked(histories: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """A copy of one history [T], or of several, [V, T] with NaN in front of shorter ones."""
    if len(histories) == 1:
        return np.array(histories[0], dtype=np.float32)
    whole = np.full((len(histories), max(map(len, histories))), np.nan, dtype=np.float32)
    for row, history in zip(whole, histories, strict=True):
        row[len(row) - len(history) :] = history
    return whole


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
