"""Bootstrap intervals: worked examples, laws, and coverage on a population that is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tsprune.evaluation.intervals import Change, Paired, change_interval, holm
from tsprune.evaluation.metrics import WindowStatistics

FIELDS = [field.name for field in dataclasses.fields(WindowStatistics)]


def statistics(errors: NDArray[np.float64]) -> WindowStatistics:
    """Windows of one point each: MASE is the mean of `errors`, CRPS half of it."""
    values = {name: np.ones(len(errors)) for name in FIELDS}
    values |= {"scaled_error_sum": errors, "quantile_loss_sum": errors / 2}
    return WindowStatistics(**values)


def paired(before: list[float], after: list[float], series: list[int] | None = None) -> Paired:
    owners = np.arange(len(before)) if series is None else np.array(series)
    return Paired(statistics(np.array(before)), statistics(np.array(after)), owners)


def test_a_change_common_to_all_has_no_width() -> None:
    pairs = [paired([1.0, 2.0, 3.0], [1.1, 2.2, 3.3]), paired([5.0, 7.0], [5.5, 7.7])]
    for metric in ("MASE", "CRPS"):
        change = change_interval(pairs, metric)
        assert [change.value, change.low, change.high] == pytest.approx([0.1] * 3)
        assert change.differs
        assert change.p_value < 0.01
        assert change.units == 5


def test_two_series_by_hand() -> None:
    # draws of two series: both are the first (1/4), the second (1/4), or one of each (1/2)
    change = change_interval([paired([1.0, 1.0], [1.0, 3.0])], "MASE", level=0.9, draws=4000)
    assert change.value == pytest.approx(1.0)  # (1 + 3) / (1 + 1) - 1
    assert (change.low, change.high) == pytest.approx((0.0, 2.0))
    assert change.p_value == pytest.approx(0.5, abs=0.05)
    assert not change.differs


def test_the_value_is_the_change_of_the_geometric_mean() -> None:
    pairs = [paired([1.0, 1.0], [2.0, 2.0]), paired([4.0], [2.0])]
    change = change_interval(pairs, "MASE")
    assert change.value == pytest.approx(0.0)
    assert (change.low, change.high) == pytest.approx((-0.5, 1.0))  # either configuration twice


def test_windows_of_a_series_are_drawn_together() -> None:
    # within a series the errors cancel, so whole series never change
    after = [1.5, 0.5, 1.5, 0.5]
    together = change_interval([paired([1.0] * 4, after, [0, 0, 1, 1])], "MASE")
    assert (together.low, together.high) == pytest.approx((0.0, 0.0))
    apart = change_interval([paired([1.0] * 4, after)], "MASE")
    assert apart.low < -0.2
    assert apart.high > 0.2


def test_a_single_series_is_drawn_by_its_windows() -> None:
    change = change_interval([paired([1.0] * 4, [1.5, 0.5, 1.5, 0.5], [7, 7, 7, 7])], "MASE")
    assert change.low < 0 < change.high
    assert change.units == 4


def test_what_cannot_be_compared_does_not_count() -> None:
    good, zero, empty = paired([1.0, 2.0], [2.0, 4.0]), paired([0.0], [1.0]), paired([], [])
    assert change_interval([good, zero, empty], "MASE").value == pytest.approx(1.0)
    nothing = change_interval([zero, empty], "MASE")
    assert np.isnan([nothing.value, nothing.low, nothing.high, nothing.p_value]).all()
    assert not nothing.differs


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=8), st.integers(0, 5))
def test_exchanging_before_and_after_inverts_the_change(errors: list[float], seed: int) -> None:
    other = [error * factor for error, factor in zip(errors, np.linspace(0.5, 2, len(errors)), strict=True)]
    forth = change_interval([paired(errors, other)], "MASE", seed=seed)
    back = change_interval([paired(other, errors)], "MASE", seed=seed)
    assert (1 + forth.value) * (1 + back.value) == pytest.approx(1)
    assert (1 + forth.low) * (1 + back.high) == pytest.approx(1, rel=0.02)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        before = rng.uniform(1, 2, 40)
        after = before * rng.lognormal(0.1, 0.3, 40)
        truth = np.exp(0.1 + 0.3**2 / 2) - 1
        change = change_interval([paired(before.tolist(), after.tolist())], "MASE", draws=400)
        covered += change.low <= truth <= change.high
    assert 0.88 <= covered / 200 <= 0.99


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]).tolist() == pytest.approx([1.0, 1.0])
    np.testing.assert_allclose(holm([np.nan, 0.02]), [np.nan, 0.02])
    assert len(holm([])) == 0


def test_a_change_reads_as_percent() -> None:
    assert str(Change(0.0312, -0.01, 0.07, 0.2, 9)) == "+3.1 % [-1.0, +7.0]"
