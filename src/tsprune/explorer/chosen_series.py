"""The series that the explorer forecasts: a window of the suite, or values that a user drew."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsprune.data.suite import Configuration, Suite
from tsprune.errors import TspruneError
from tsprune.evaluation import seasonal_errors, unforecastable
from tsprune.explain.forecast_traits import dominant_period
from tsprune.models.contexts import checked_contexts

DRAWN_STEPS = 4096  # of a drawn series, at most
DRAWN_HORIZON = 48  # steps to forecast of it
_FEWEST = 8  # steps of a drawn series


@dataclasses.dataclass(frozen=True, eq=False)
class ChosenSeries:
    """One series to forecast.

    name : for people
    context : float32 [T], cut to the model's context length, NaN where missing
    horizon : steps to forecast, H
    season_error : mean absolute seasonal difference of the whole history, the unit of errors; 0 if constant
    target : float32 [H], the true future; None of a drawn series
    """

    name: str
    context: NDArray[np.float32]
    horizon: int
    season_error: float
    target: NDArray[np.float32] | None = None

    @cached_property
    def key(self) -> str:
        """SHA-256 of the model's input."""
        return hashlib.sha256(f"{self.horizon}|".encode() + self.context.tobytes()).hexdigest()

    @cached_property
    def period(self) -> float:
        """Dominant period of the context, in steps; NaN without one."""
        return dominant_period(self.context)


def forecastable(configuration: Configuration, context_length: int) -> list[int]:
    """The rows of the windows that can be forecast."""
    lost = {row for row, _ in unforecastable(configuration, context_length)}
    return [row for row in range(len(configuration)) if row not in lost]


def window_name(configuration: Configuration, window: int) -> str:
    """A window for people: its series in the user's data and the first time to forecast, or its number.

    Without times, windows of one series are told apart by their numbers.
    """
    origins = configuration.origins
    if origins is None:
        return str(window)
    name = origins.ids[window]
    times = origins.times(window, len(configuration.contexts[window]), 1)
    if times is None:
        return f"{name}, window {window}" if origins.ids.count(name) > 1 else name
    return f"{name} from {str(times[0].astype('datetime64[s]')).removesuffix('T00:00:00').replace('T', ' ')}"


def window_of(suite: Suite, name: str, window: int, context_length: int) -> ChosenSeries:
    """A window of a suite by its configuration's name and its number there.

    Raises TspruneError if there is no such window, or it cannot be forecast.
    """
    found = [c for c in suite.configurations if c.name == name]
    if not found:
        raise TspruneError(f"{suite.name} has no configuration {name!r}")
    c = found[0]
    if not 0 <= window < len(c):
        raise TspruneError(f"{name} has windows 0 to {len(c) - 1}, not {window}")
    if window not in forecastable(c, context_length):
        raise TspruneError(f"{name}, window {window} has no observed value to forecast from")
    error = float(seasonal_errors([c.contexts[window]], c.season)[0])
    context = np.array(c.contexts[window][-context_length:], dtype=np.float32)
    place = ("window " if c.origins is None else "") + window_name(c, window)
    return ChosenSeries(f"{name}, {place}", context, c.horizon, error, c.targets[window])


def drawn_series(values: Sequence[Any], context_length: int) -> ChosenSeries:
    """A series of numbers that a user drew; its season is its dominant period.

    Raises TspruneError for fewer than 8 or more than 4,096 values, and for what is not numbers.
    """
    if not _FEWEST <= len(values) <= DRAWN_STEPS:
        raise TspruneError(f"a drawn series has {_FEWEST} to {DRAWN_STEPS:,} values, not {len(values)}")
    context = checked_contexts([list(values)])[0][-context_length:]
    period = dominant_period(context)
    season = round(period) if np.isfinite(period) else 1
    error = float(seasonal_errors([context], season)[0])
    return ChosenSeries("drawn by hand", context, DRAWN_HORIZON, error)
