"""No verdict says more than its interval."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsprune.evaluation.verdicts import above, at_most, below, every
from tsprune.explain.intervals import Interval

NUMBERS = st.floats(-10, 10)


@given(NUMBERS, NUMBERS, NUMBERS)
def test_a_limit_within_the_interval_decides_nothing(a: float, b: float, c: float) -> None:
    low, limit, high = sorted((a, b, c))
    if low < limit < high:
        interval = Interval(limit, low, high, 9)
        assert {claim(interval, limit) for claim in (at_most, below, above)} == {"undecided"}


@given(NUMBERS, NUMBERS, NUMBERS)
def test_opposite_claims_get_opposite_verdicts(a: float, b: float, limit: float) -> None:
    interval = Interval(0, min(a, b), max(a, b), 9)
    verdicts = below(interval, limit), above(interval, limit)
    assert verdicts in {("confirmed", "refuted"), ("refuted", "confirmed"), ("undecided", "undecided")}


def test_the_limit_itself() -> None:
    assert at_most(Interval(0, 0, 1, 9), 1) == "confirmed"
    assert below(Interval(0, 0, 1, 9), 1) == "undecided"
    assert above(Interval(0, 1, 2, 9), 1) == "undecided"
    nothing = Interval(0, float("nan"), float("nan"), 1)
    assert {claim(nothing, 1) for claim in (at_most, below, above)} == {"undecided"}


@pytest.mark.parametrize(
    ("verdicts", "together"),
    [
        (["confirmed", "confirmed"], "confirmed"),
        (["confirmed", "undecided"], "undecided"),
        (["refuted", "undecided"], "refuted"),
        (["refuted", "confirmed"], "refuted"),
        ([], "undecided"),
    ],
)
def test_several_together(verdicts: list, together: str) -> None:
    assert every(verdicts) == together
