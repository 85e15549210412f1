"""From an interval to a verdict: a claim is decided only if the whole interval lies on one side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

Verdict = Literal["confirmed", "refuted", "undecided"]


class Limits(Protocol):
    """Whatever has an interval; limits that are NaN decide nothing."""

    @property
    def low(self) -> float: ...

    @property
    def high(self) -> float: ...


def at_most(change: Limits, limit: float) -> Verdict:
    """The claim that `change` is `limit` or less."""
    if change.high <= limit:
        return "confirmed"
    return "refuted" if change.low > limit else "undecided"


def below(change: Limits, limit: float) -> Verdict:
    """The claim that `change` is less than `limit`; an interval that touches it decides nothing."""
    if change.high < limit:
        return "confirmed"
    return "refuted" if change.low > limit else "undecided"


def above(change: Limits, limit: float) -> Verdict:
    """The claim that `change` is more than `limit`; an interval that touches it decides nothing."""
    if change.low > limit:
        return "confirmed"
    return "refuted" if change.high < limit else "undecided"


def every(verdicts: Sequence[Verdict]) -> Verdict:
    """The claim that several hold together: one refuted refutes it, all must be confirmed.

    Their intervals should hold together as well (`tsprune.evaluation.intervals.simultaneous`).
    """
    if "refuted" in verdicts:
        return "refuted"
    return "confirmed" if verdicts and set(verdicts) == {"confirmed"} else "undecided"
