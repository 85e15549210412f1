"""Relative changes of a metric over configurations: worked examples and laws."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tsprune.evaluation.changes import Scored, change, changes
from tsprune.evaluation.metrics import WindowStatistics

FIELDS = [field.name for field in dataclasses.fields(WindowStatistics)]


def statistics(errors: NDArray[np.float64]) -> WindowStatistics:
    """Windows of one point each: MASE is the mean of `errors`, CRPS half of it."""
    values = {name: np.ones(len(errors)) for name in FIELDS}
    values |= {"scaled_error_sum": errors, "quantile_loss_sum": errors / 2}
    return WindowStatistics(**values)


def scored(
    before: list[float], after: list[float], series: list[int] | None = None, name: str = "a/D/short"
) -> Scored:
    owners = np.arange(len(before)) if series is None else np.array(series)
    return Scored(name, statistics(np.array(before)), [statistics(np.array(after))], owners)


def test_a_change_common_to_all_has_no_width() -> None:
    both = [scored([1.0, 2.0, 3.0], [1.1, 2.2, 3.3]), scored([5.0, 7.0], [5.5, 7.7], name="b")]
    for metric in ("MASE", "CRPS"):
        found = change(both, metric)
        assert [found.value, found.low, found.high] == pytest.approx([0.1] * 3)
        assert found.differs
        assert found.p < 0.01
        assert found.count == 2


def test_two_configurations_by_hand() -> None:
    """Log ratios 0 and log 2: mean log sqrt(2), error half of log 2, Student's t of one degree of freedom."""
    found = change([scored([1.0, 3.0], [1.0, 3.0]), scored([2.0, 1.0], [2.0, 4.0], name="b")], "MASE")
    reach = 12.7062 * np.log(2) / 2
    assert found.value == pytest.approx(np.sqrt(2) - 1)
    assert 1 + found.low == pytest.approx(np.sqrt(2) * np.exp(-reach), rel=1e-4)
    assert 1 + found.high == pytest.approx(np.sqrt(2) * np.exp(reach), rel=1e-4)
    assert found.p == pytest.approx(0.5)  # Cauchy's distribution beyond 1


def test_the_value_is_the_change_of_the_geometric_mean() -> None:
    found = change([scored([1.0, 1.0], [2.0, 2.0]), scored([4.0], [2.0], name="b")], "MASE")
    assert found.value == pytest.approx(0.0)


def test_windows_of_a_series_are_one_unit() -> None:
    # within a series the errors cancel, so whole series never change
    after = [1.5, 0.5, 1.5, 0.5]
    together = change([scored([1.0] * 4, after, [0, 0, 1, 1])], "MASE")
    assert (together.low, together.high, together.count) == pytest.approx((0.0, 0.0, 2))
    apart = change([scored([1.0] * 4, after)], "MASE")
    assert apart.low < -0.2
    assert apart.high > 0.2
    assert apart.count == 4


def test_one_series_never_decides() -> None:
    """However many windows it has: they are not independent."""
    found = change([scored([1.0] * 20, [2.0] * 20, [7] * 20)], "MASE")
    assert found.value == pytest.approx(1.0)
    assert np.isnan([found.low, found.high, found.p]).all()
    assert not found.differs
    assert found.as_percent() == "+100.0 % [no interval]"


def test_what_cannot_be_compared_does_not_count() -> None:
    good, zero, empty = scored([1.0, 2.0], [2.0, 4.0]), scored([0.0], [1.0]), scored([], [])
    assert change([good, zero, empty], "MASE").value == pytest.approx(1.0)
    for nothing in (change([zero, empty], "MASE"), change([], "MASE")):
        assert np.isnan([nothing.value, nothing.low, nothing.high, nothing.p]).all()
        assert not nothing.differs


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=8))
def test_exchanging_before_and_after_inverts_the_change(errors: list[float]) -> None:
    other = [error * factor for error, factor in zip(errors, np.linspace(0.5, 2, len(errors)), strict=True)]
    forth, back = change([scored(errors, other)], "MASE"), change([scored(other, errors)], "MASE")
    assert (1 + forth.value) * (1 + back.value) == pytest.approx(1)
    if np.isfinite(forth.high):
        assert (1 + forth.low) * (1 + back.high) == pytest.approx(1)


def test_pseudo_values_of_series_written_out() -> None:
    """Three series of a single configuration: the log ratio without each of them."""
    before, after = np.array([1.0, 2.0, 4.0]), np.array([2.0, 2.0, 5.0])
    sample = changes([scored(before.tolist(), after.tolist())], "MASE")
    whole = np.log(9 / 7)
    without = np.log([(9 - a) / (7 - b) for a, b in zip(after, before, strict=True)])
    np.testing.assert_allclose(sample.values[0, :, 0], whole - 2 * (without - without.mean()))
    assert sample.units == ("0", "1", "2")


@pytest.mark.parametrize("count", [2, 3, 5, 9])
def test_the_interval_covers_the_truth(count: int) -> None:
    """`benchmarks/coverage.py` has more of it: 36 kinds of data."""
    rng = np.random.default_rng(count)
    runs, data = 400, []
    for number in range(count):
        before = rng.lognormal(0, 0.3, 7)
        effect = 0.05 + 0.1 * rng.standard_normal((runs, 1)) + 0.1 * rng.standard_normal((runs, 7))
        after = [statistics(one) for one in before * np.exp(effect)]
        data.append(Scored(str(number), statistics(before), after, np.arange(7)))
    found = changes(data, "MASE").estimates()
    truth = np.expm1(np.log1p(found.value).mean())
    assert 0.91 <= np.mean((found.low <= truth) & (truth <= found.high)) <= 0.98


def test_an_ablation_without_scores_is_nan_and_spoils_no_other() -> None:
    one = statistics(np.array([1.0, 2.0, 4.0]))
    other = statistics(np.array([2.0, 2.0, 5.0]))
    data = [Scored(name, one, [None, other], np.arange(3)) for name in "ab"]
    found = changes(data, "MASE").estimates()
    assert np.isnan([found.value[0], found.low[0], found.high[0]]).all()
    alone = change([Scored(name, one, [other], np.arange(3)) for name in "ab"], "MASE")
    assert found.at(1) == alone


def test_only_chosen_windows_count() -> None:
    both = [scored([1.0, 1.0, 1.0], [2.0, 9.0, 2.0]), scored([1.0, 1.0], [2.0, 2.0], name="b")]
    both[0] = dataclasses.replace(both[0], chosen=np.array([True, False, True]))
    assert change(both, "MASE").value == pytest.approx(1.0)
