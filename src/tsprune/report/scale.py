"""A signed logarithmic scale: changes of 0.1 % and of 3,000 %, better and worse, in one picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclasses.dataclass(frozen=True)
class Scale:
    """Maps values to positions on an axis: unchanged, or asinh(value / threshold).

    asinh is linear within +-threshold and logarithmic beyond; threshold None means linear.
    """

    threshold: float | None
    low: float
    high: float

    def __call__(self, values: ArrayLike) -> NDArray[np.float64]:
        """Positions of `values`, same shape; values that are not finite become NaN (gaps)."""
        array = np.asarray(values, dtype=np.float64)
        array = np.where(np.isfinite(array), array, np.nan)
        return array if self.threshold is None else np.arcsinh(array / self.threshold)

    def ticks(self, *, dense: bool = True) -> tuple[list[float], list[str]]:
        """Positions and labels of the ticks of a logarithmic scale, in percent: 0, 1, 10, ..."""
        if self.threshold is None:
            return [], []
        reach = max(self.high, -self.low) / self.threshold
        # a tick at 3, 30, ... too while there is room
        factors = (1.0, 3.0) if dense and reach < 1000 else (1.0,)
        steps = [self.threshold * factor * 10.0**power for power in range(12) for factor in factors]
        up = [step for step in steps if step <= max(self.high, self.threshold) * 1.2]
        down = [-step for step in steps if step <= -self.low * 1.2]
        values = [*reversed(down), 0.0, *up]
        return [float(position) for position in self(values)], [f"{value:,.6g}" for value in values]

    def range(self, margin: float = 0.05) -> tuple[float, float]:
        """The axis range in positions that holds every value, with a margin on both sides."""
        low, high = (float(position) for position in self([self.low, self.high]))
        pad = margin * (high - low) or 1.0
        return low - pad, high + pad


def scale_for(groups: Iterable[ArrayLike], *, threshold: float | None = None, orders: float = 1.5) -> Scale:
    """One scale for all `groups` of values (any shapes, in percent).

    It is logarithmic if the largest size exceeds the threshold by more than `orders` powers of ten. The
    default threshold is the power of ten at or below the median size.
    """
    arrays = [np.asarray(group, dtype=np.float64).ravel() for group in groups]
    values = np.concatenate([*arrays, np.zeros(1)])
    values = values[np.isfinite(values)]
    low, high = float(values.min()), float(values.max())
    sizes = np.abs(values[values != 0])
    if sizes.size == 0:
        return Scale(None, -1.0, 1.0)
    knee = threshold if threshold is not None else 10.0 ** np.floor(np.log10(np.median(sizes)))
    return Scale(float(knee) if sizes.max() > knee * 10.0**orders else None, low, high)
