"""Dates and times in text."""

from __future__ import annotations

import calendar
import datetime as dt
import itertools
import re
from collections.abc import Sequence

# ISO 8601 without a zone, and a zone behind a time of day
ISO_PATTERN = r"^[12]\d{3}-\d\d(-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?)?)?$"
NEARLY_ISO = (
    (r"^([12]\d{3})([/.])(\d\d)[/.](\d\d)", r"\1-\3-\4"),
    (r"^(\d\d)\.(\d\d)\.([12]\d{3})", r"\3-\2-\1"),
)  # forms and their order in ISO 8601: long columns are parsed together
ZONE_PATTERN = r"(?P<clock>:\d\d(?:\.\d+)?) ?(?P<zone>Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)$"

_MONTHS = {
    name: number
    for number, names in enumerate(calendar.month_name)
    for name in (names.lower(), names[:3].lower())
    if name
} | {"sept": 9}
_TIME = (
    r"(?:[ T,]+(?P<h>\d{1,2}):(?P<min>\d\d)(?::(?P<s>\d\d)(?:[.,](?P<f>\d{1,9}))?)?"
    r"(?: ?(?P<half>[AaPp])\.?[Mm]\.?)?)?"
)
_YEAR, _MON, _DAY = r"(?P<y>[12]\d{3})", r"(?P<mon>[A-Za-z]{3,9})\.?", r"(?P<d>\d{1,2})(?:st|nd|rd|th)?"
_FORMS = tuple(
    re.compile(form + _TIME)
    for form in (
        rf"{_YEAR}[-/.](?P<m>\d{{1,2}})(?:[-/.](?P<d>\d{{1,2}}))?",
        r"(?P<y>[12]\d{3})(?P<m>\d\d)(?P<d>\d\d)",
        rf"(?P<d>\d{{1,2}})\.(?P<m>\d{{1,2}})\.{_YEAR}",
        rf"(?P<a>\d{{1,2}})[-/](?P<b>\d{{1,2}})[-/]{_YEAR}",
        rf"(?:[A-Za-z]{{3}},? )?{_MON}[- ]{_DAY},?[- ]{_YEAR}",
        rf"(?:[A-Za-z]{{3}},? )?{_DAY}[- ]{_MON}[- ,]+{_YEAR}",
        rf"{_DAY}[- ]{_MON}[- ](?P<yy>\d\d)",
        rf"{_MON}[- ,]*{_YEAR}",
        rf"{_YEAR}[- ]*{_MON}",
        rf"(?P<m>\d{{1,2}})/{_YEAR}",
        rf"{_YEAR}[- ]?[Qq](?P<q>[1-4])",
        rf"[Qq](?P<q>[1-4])[- /]?{_YEAR}",
        rf"{_YEAR}[Mm](?P<m>\d{{1,2}})",
        rf"{_YEAR}-?[Ww](?P<w>\d\d)(?:-?(?P<wd>[1-7]))?",
        _YEAR,
    )
)


class AmbiguousDatesError(ValueError):
    """Dates that may have the day or the month first."""


def parse_dates(texts: Sequence[str]) -> list[dt.datetime | None]:
    """Each text as a time, all read by one convention; None for a text that is not a time.

    Of dates such as 3/4/2020, the day is first if any number in front is above 12, the month if any behind
    is; if none is, the order that makes the distances between them more equal.

    Raises AmbiguousDatesError if neither order does.
    """
    fields = [_fields(text) for text in texts]
    pairs = [(int(f["a"]), int(f["b"])) for f in fields if f is not None and f.get("a")]
    if not pairs:
        return [_time(f) for f in fields]
    day_first, month_first = any(a > 12 for a, _ in pairs), any(b > 12 for _, b in pairs)
    if day_first or month_first:  # both: whatever is not a date by one order is None
        return [_time(f, "ab" if day_first else "ba") for f in fields]
    orders = [[_time(f, order) for f in fields] for order in ("ab", "ba")]
    first, second = (_unevenness(times) for times in orders)
    if max(first, second) < 2 * min(first, second):
        raise AmbiguousDatesError
    return orders[int(second < first)]


def _unevenness(times: Sequence[dt.datetime | None]) -> float:
    """The largest distance between neighbours divided by the smallest."""
    found = sorted({time for time in times if time is not None})
    distances = [(b - a).total_seconds() for a, b in itertools.pairwise(found)]
    return max(distances) / min(distances) if distances else 1.0


def _fields(text: str) -> dict[str, str] | None:
    for form in _FORMS:
        if match := form.fullmatch(text):
            return {name: value for name, value in match.groupdict().items() if value is not None}
    return None


def _time(fields: dict[str, str] | None, order: str = "ab") -> dt.datetime | None:
    """order : of the fields a and b: the day and then the month ("ab"), or the other way round"""
    if fields is None:
        return None
    if "a" in fields:
        fields = fields | {"d": fields[order[0]], "m": fields[order[1]]}
    try:
        if "w" in fields:
            return dt.datetime.fromisocalendar(_year(fields), int(fields["w"]), int(fields.get("wd", 1)))
        month = int(fields.get("m", 1))
        if "q" in fields:
            month = 3 * int(fields["q"]) - 2
        if "mon" in fields:
            month = _MONTHS[fields["mon"].lower()]
        day = dt.datetime(_year(fields), month, int(fields.get("d", 1)))
        return day + _time_of_day(fields)
    except (ValueError, KeyError):
        return None


def _year(fields: dict[str, str]) -> int:
    """The year; two digits are of 1969 to 2068, as POSIX reads them."""
    if "yy" not in fields:
        return int(fields["y"])
    short = int(fields["yy"])
    return short + (1900 if short > 68 else 2000)


def _time_of_day(fields: dict[str, str]) -> dt.timedelta:
    hour, minute, second = (int(fields.get(name, 0)) for name in ("h", "min", "s"))
    if half := fields.get("half"):
        if not 1 <= hour <= 12:
            raise ValueError("not an hour of a half day")
        hour = hour % 12 + (12 if half in "Pp" else 0)
    if hour > 23 or minute > 59 or second > 59:
        raise ValueError("not a time of day")
    micro = int(fields.get("f", "0").ljust(6, "0")[:6])
    return dt.timedelta(hours=hour, minutes=minute, seconds=second, microseconds=micro)
