"""Regular time steps: found in irregular times, and positions of times on them.

Times are int64 microseconds since 1970, of UTC or of the local clock.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tsprune.data.windows import parse_frequency
from tsprune.errors import TspruneError

Times = NDArray[np.int64]

SECOND = 1_000_000
DAY = 86_400 * SECOND
FEWEST_TIMES = 3  # times that a step can be found in
SPARSEST = 10  # steps per row: with more, a time is rather a mistake
_FREE = 1000  # steps that are allowed in any case
_FIXED = {"s": SECOND, "min": 60 * SECOND, "h": 3600 * SECOND, "D": DAY, "W": 7 * DAY}
_MONTHS = {"ME": 1, "QE": 3, "YE": 12}


class IrregularError(TspruneError):
    """Times without a common step. row : index of the first time that does not fit, None if no single one."""

    def __init__(self, message: str, row: int | None = None) -> None:
        super().__init__(message)
        self.row = row


@dataclasses.dataclass(frozen=True)
class TimeStep:
    """The step of a series.

    unit : "us" (fixed), "month", "business" (Monday to Friday) or "row" (times are counters)
    count : microseconds, months, days or counts in a step
    ends : of months: whether times are the last days of months
    """

    unit: Literal["us", "month", "business", "row"]
    count: int
    ends: bool = False

    @property
    def freq(self) -> str:
        """The pandas frequency, without an anchor; "" if rows are counted.

        Raises IrregularError for steps that are not whole seconds.
        """
        if self.unit == "row":
            return ""
        if self.unit == "business":
            return "B"
        sizes = {"month": _MONTHS, "us": _FIXED}[self.unit]
        for unit, size in sorted(sizes.items(), key=lambda item: -item[1]):
            if self.count % size == 0:
                return unit if self.count == size else f"{self.count // size}{unit}"
        raise IrregularError(f"a step of {self.count / SECOND:g} s; steps below a second need whole seconds")

    def positions(self, times: Times) -> Times:
        """Steps [R] from the first of ascending `times` [R].

        Raises IrregularError, with the row, for a time between steps.
        """
        if self.unit == "business":
            days = (times // DAY).astype("datetime64[D]")
            weekend = np.flatnonzero(~np.is_busday(days))
            if weekend.size:
                raise IrregularError("a time on a weekend, at the frequency B", int(weekend[0]))
            found = np.asarray(np.busday_count(days[0], days), dtype=np.int64)
            offset = times % DAY != times[0] % DAY
        else:
            distance = months(times) - months(times)[0] if self.unit == "month" else times - times[0]
            found, offset = distance // self.count, distance % self.count != 0
        offset[1:] |= np.diff(found) == 0  # two times within one step
        if offset.any():
            row = int(np.argmax(offset))
            raise IrregularError(f"a time between steps of {self.freq or self.count}", row)
        return found

    def at(self, start: int, steps: Times) -> Times:
        """The times [R] at `steps` [R] after `start`."""
        if self.unit == "business":
            first = np.datetime64(start // DAY, "D")
            days = np.busday_offset(first, steps, roll="forward")
            return np.asarray(days.astype(np.int64) * DAY + start % DAY)
        if self.unit != "month":
            return np.asarray(start + steps * self.count)
        date = np.array([start // DAY]).astype("datetime64[D]")
        month = date.astype("datetime64[M]") + steps * self.count
        first_day, last_day = month.astype("datetime64[D]"), (month + 1).astype("datetime64[D]") - 1
        day = (date - date.astype("datetime64[M]"))[0]
        days = last_day if self.ends else np.minimum(first_day + day, last_day)
        return np.asarray(days.astype(np.int64) * DAY + start % DAY)


def months(times: Times) -> Times:
    """Months [R] since 1970."""
    return (times // DAY).astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)


def of_frequency(freq: str, times: Times | None = None) -> TimeStep:
    """The step of a pandas frequency; `times` tell whether months are dated by their ends."""
    multiple, unit = parse_frequency(freq)
    if unit == "B":
        return TimeStep("business", multiple)
    if unit in _FIXED:
        return TimeStep("us", multiple * _FIXED[unit])
    return TimeStep("month", multiple * _MONTHS[unit], times is not None and bool(_month_ends(times).all()))


def infer(times: Times) -> TimeStep:
    """The step of ascending, distinct times [R], of which some may be missing.

    Raises IrregularError for fewer than three times, and for times without a common step.
    """
    if len(times) < FEWEST_TIMES:
        raise IrregularError(f"{len(times)} times are too few to infer a frequency; give --freq")
    return _dated_months(times) or _business(times) or _fixed(times)


def _dated_months(times: Times) -> TimeStep | None:
    """Whole months: times of one day of the month, or of the months' ends."""
    distances = np.diff(months(times))
    if distances.min() < 1:
        return None
    days = (times // DAY).astype("datetime64[D]")
    of_month = (days - days.astype("datetime64[M]")).astype(np.int64)
    ends = bool(_month_ends(times).all())
    last = ends or bool(((of_month == of_month.max()) | _month_ends(times)).all())
    if not last or len(np.unique(times % DAY)) > 1:
        return None
    count = _mode(distances)
    return TimeStep("month", count, ends) if not (distances % count).any() else None


def _month_ends(times: Times) -> NDArray[np.bool_]:
    return np.asarray(months(times + DAY) != months(times))


def _business(times: Times) -> TimeStep | None:
    """Daily times without any on a weekend, although weekends lie between them."""
    distances = np.diff(times)
    if _mode(distances) != DAY or (distances % DAY).any():
        return None
    days = (times // DAY).astype("datetime64[D]")
    crossed = days[-1] - days[0] >= np.timedelta64(6, "D")
    return TimeStep("business", 1) if crossed and np.is_busday(days).all() else None


def _fixed(times: Times) -> TimeStep:
    distances = np.diff(times)
    count = _mode(distances)
    wrong = np.flatnonzero(distances % count)
    if not wrong.size:
        return TimeStep("us", count)
    by_month = np.diff(months(times))
    if (
        distances.min() > 20 * DAY
        and by_month.min() >= 1
        and not (by_month % (each := _mode(by_month))).any()
    ):
        return TimeStep("month", each)  # on changing days, such as the last working day
    raise IrregularError("the time is not a whole number of steps after the one before", int(wrong[0]) + 1)


def _mode(distances: Times) -> int:
    """The most common distance, the smallest of several."""
    values, counts = np.unique(distances, return_counts=True)
    return int(values[np.argmax(counts)])


def require_dense(positions: Times) -> None:
    """IrregularError, with the row after the largest gap, if most steps are missing."""
    length = int(positions[-1]) + 1
    if length > max(_FREE, SPARSEST * len(positions)):
        row = int(np.argmax(np.diff(positions))) + 1
        raise IrregularError(
            f"{len(positions)} rows over {length:,} steps; the largest gap ends at this row", row
        )
