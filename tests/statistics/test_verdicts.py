"""Verdicts: no more than the tests show, one answer a family, none that a seed decides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsprune.statistics import SEEDS, UNKNOWN, Estimate, Known, Sample, Test, holm, judged


def sample(mean: float, spread: float = 0.01, count: int = 6) -> Sample:
    return Sample.of(mean + spread * np.linspace(-1, 1, count))


@settings(max_examples=30, deadline=None)
@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(0.01, 1))
def test_opposite_statements_get_opposite_verdicts(mean: float, limit: float, spread: float) -> None:
    one = sample(mean, spread)
    (below,), (above,) = (judged([[Test(one, side, limit)]]) for side in ("below", "above"))  # type: ignore[arg-type]
    opposite = {"confirmed": "refuted", "refuted": "confirmed", "undecided": "undecided"}
    assert above.verdict == opposite[below.verdict]
    interval = one.estimate()
    if interval.low < limit < interval.high:
        assert below.verdict == "undecided"


def test_all_statements_must_be_shown_and_one_refutes() -> None:
    down, unsure, up = sample(-1), sample(0, 5), sample(1)
    assert judged([[Test(down, "below"), Test(up, "above")]])[0].verdict == "confirmed"
    assert judged([[Test(down, "below"), Test(unsure, "below")]])[0].verdict == "undecided"
    assert judged([[Test(down, "below"), Test(up, "below")]])[0].verdict == "refuted"
    assert judged([[]])[0].verdict == "undecided"


def test_a_statement_that_cannot_be_tested_decides_nothing() -> None:
    single = Sample.of([-5.0])
    found = judged([[Test(sample(-1), "below"), Test(single, "below")]])[0]
    assert found.verdict == "undecided"
    assert str(found) == "not tested"
    assert judged([[Known(UNKNOWN, "below")]])[0].verdict == "undecided"


def test_a_family_is_corrected_together() -> None:
    """p = 0.03 is shown alone, but not beside another claim of p = 0.04 (Holm: 0.06)."""
    one, other = (Known(Estimate(-1, -2, -0.1, p, 9), "below") for p in (0.03, 0.04))
    assert [found.verdict for found in judged([[one]])] == ["confirmed"]
    together = judged([[one], [other]])
    assert [found.verdict for found in together] == ["undecided"] * 2
    assert [found.p for found in together] == pytest.approx([0.06, 0.06])


def test_what_cannot_be_tested_is_not_in_the_family() -> None:
    one = Known(Estimate(-1, -2, -0.1, 0.04, 9), "below")
    assert judged([[one], [Known(UNKNOWN, "below")]])[0].verdict == "confirmed"


def test_a_verdict_that_turns_on_the_seed_is_undecided() -> None:
    """Twelve units whose p-value is so close to 5 % that bootstrap seeds disagree."""
    values = np.random.default_rng(0).standard_normal(12)
    error = values.std(ddof=1) / np.sqrt(12)
    shifts = -np.linspace(2.0, 2.6, 13) * error
    found = [judged([[Test(Sample.of(values - values.mean() + shift), "below")]])[0] for shift in shifts]
    split = [one for one in found if one.agreement < 1]
    assert split
    assert {one.verdict for one in split} == {"undecided"}
    assert f"of {SEEDS} bootstrap seeds" in str(split[0])
    whole = [one for one in found if one.agreement == 1]
    assert {one.verdict for one in whole} == {"confirmed", "undecided"}


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]).tolist() == pytest.approx([1.0, 1.0])
    np.testing.assert_allclose(holm([np.nan, 0.02]), [np.nan, 0.02])
    assert len(holm([])) == 0
