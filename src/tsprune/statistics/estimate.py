"""One number that was measured, with its interval and its p-value."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95

Array = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A value with its interval.

    low, high : limits of the interval; NaN below two units, where nothing is known of the spread
    p : two-sided p-value of the null hypothesis (no change, unless stated otherwise); NaN below two units
    count : units (configurations, or series of a single configuration) that the spread is estimated from
    """

    value: float
    low: float
    high: float
    p: float
    count: int

    @property
    def differs(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0

    @property
    def has_interval(self) -> bool:
        return not (math.isnan(self.low) or math.isnan(self.high))

    def __str__(self) -> str:
        if not self.has_interval:
            return f"{self.value:+.4f} [no interval]"
        return f"{self.value:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"

    def as_percent(self) -> str:
        """The estimate of a relative change: `+3.1 % [-1.0, +7.0]`."""
        if not self.has_interval:
            return f"{100 * self.value:+.1f} % [no interval]"
        return f"{100 * self.value:+.1f} % [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"


UNKNOWN = Estimate(math.nan, math.nan, math.nan, math.nan, 0)


@dataclasses.dataclass(frozen=True)
class Estimates:
    """M estimates side by side: the fields of `Estimate`, each [M]."""

    value: Array
    low: Array
    high: Array
    p: Array
    count: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.value)

    def at(self, column: int) -> Estimate:
        """One of them."""
        value, low, high, p = (float(one[column]) for one in (self.value, self.low, self.high, self.p))
        return Estimate(value, low, high, p, int(self.count[column]))
