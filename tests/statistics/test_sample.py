"""Estimates of samples: one rule for intervals and p-values, whatever the quantity is made of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsprune.statistics import Estimate, Sample, pseudo_values, unit_means

COUNTS = st.integers(2, 12)


def numbers(found: Estimate) -> tuple[float, ...]:
    return found.value, found.low, found.high, found.p, found.count


@settings(max_examples=40, deadline=None)
@given(COUNTS, st.integers(0, 1000), st.floats(-1, 1))
def test_the_interval_leaves_out_what_p_rejects(count: int, seed: int, null: float) -> None:
    values = np.random.default_rng(seed).gamma(2, 1, count) - 2
    found = Sample.of(values).estimate(null=null)
    if abs(found.p - 0.05) > 2e-3:  # drawn quantiles are steps
        assert (null < found.low or null > found.high) == (found.p < 0.05)
    assert found.low <= found.value <= found.high


@settings(max_examples=20, deadline=None)
@given(COUNTS, st.integers(0, 1000))
def test_a_ratio_and_its_inverse_are_alike(count: int, seed: int) -> None:
    logs = np.random.default_rng(seed).standard_normal(count)
    forth, back = (Sample.of(sign * logs, logarithmic=True).estimate() for sign in (1, -1))
    assert (1 + forth.value) * (1 + back.value) == pytest.approx(1)
    if count <= 8:
        assert (1 + forth.low) * (1 + back.high) == pytest.approx(1)
        assert forth.p == pytest.approx(back.p)


def test_a_null_of_a_relative_change() -> None:
    logs = np.log(1.06) + np.array([-0.01, 0.0, 0.01])
    assert Sample.of(logs, logarithmic=True).estimate(null=0.06).p == pytest.approx(1)


@pytest.mark.parametrize("count", [0, 1])
def test_below_two_units_there_is_no_interval(count: int) -> None:
    found = Sample.of(np.full(count, 3.0)).estimate()
    assert np.isnan([found.low, found.high, found.p]).all()
    assert (found.value == 3.0) if count else np.isnan(found.value)
    assert not found.differs
    assert "no interval" in str(found)


def test_units_without_a_value_do_not_count() -> None:
    rng = np.random.default_rng(0)
    full = rng.standard_normal((9, 3))
    holes = full.copy()
    holes[4, 1], holes[:, 2] = np.nan, np.nan
    found = Sample.of(holes).estimates()
    alone = Sample.of(np.delete(full[:, 1], 4)).estimate()
    assert numbers(found.at(1)) == pytest.approx(numbers(alone))
    assert found.count.tolist() == [9, 8, 0]
    assert np.isnan(found.value[2])
    assert numbers(found.at(0)) == pytest.approx(numbers(Sample.of(full[:, 0]).estimate()))


def test_many_columns_are_each_of_them() -> None:
    values = np.random.default_rng(1).standard_normal((6, 600))
    found = Sample.of(values).estimates()
    for column in (0, 255, 256, 599):
        assert numbers(found.at(column)) == pytest.approx(numbers(Sample.of(values[:, column]).estimate()))


def test_differences_are_paired_by_name() -> None:
    a = Sample.of([1.0, 2.0, 3.0], ["x", "y", "z"])
    b = Sample.of([3.0, 1.0, 9.0], ["z", "x", "w"])
    difference = a.minus(b)
    assert difference.units == ("x", "z")
    assert difference.values[0, :, 0].tolist() == [0.0, 0.0]
    draws = Sample.of([[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]], ["x", "y", "z"]).as_draws()
    assert a.minus(draws).values[:, :, 0].tolist() == [[1, 1, 1], [0, 0, 0]]


def test_random_draws_widen_the_interval() -> None:
    """The units agree fully; all the spread is that of four random draws."""
    values = np.tile([0.0, 1.0, 2.0, 3.0], (6, 1))
    found = Sample.of(values).as_draws().estimate()
    assert found.value == 1.5
    assert found.low < 0.5
    assert found.high > 2.5
    single = Sample.of(values[:, 2]).estimate()
    assert single.low == single.high == 2.0


def test_the_median_is_that_of_the_estimates() -> None:
    logs = np.random.default_rng(2).normal([0.0, 0.1, 0.5, 0.9], 0.05, (8, 4))
    sample = Sample.of(logs, logarithmic=True)
    found = sample.median().estimate()
    assert found.value == pytest.approx(np.expm1(np.median(logs.mean(axis=0))))
    # the same two middle columns under every jackknife draw: the median is their mean
    middle = Sample.of(logs[:, 1:3].mean(axis=1), logarithmic=True).estimate()
    assert (found.low, found.high) == pytest.approx((middle.low, middle.high))


def test_pseudo_values_of_a_mean_are_the_values() -> None:
    values = np.random.default_rng(3).standard_normal((7, 2))
    np.testing.assert_allclose(pseudo_values(values, lambda means: means), values)
    ratio = pseudo_values(np.array([[1.0, 2.0], [3.0, 4.0]]), lambda m: m[..., :1] / m[..., 1:])
    assert ratio.mean() == pytest.approx(4 / 6)


def test_windows_of_a_series_then_series_of_a_configuration() -> None:
    values = [[1.0, np.nan], [3.0, np.nan], [10.0, 4.0], [5.0, 6.0]]
    means, names = unit_means(values, [7, 7, 9, 2], ["a", "a", "a", "b"])
    assert names == ("a", "b")
    np.testing.assert_array_equal(means, [[6.0, 4.0], [5.0, 6.0]])
    of_series, owners = unit_means(values, [7, 7, 9, 2], ["a"] * 4)  # a single configuration
    assert owners == ("2", "7", "9")
    np.testing.assert_array_equal(of_series, [[5, 6], [2, np.nan], [10, 4]])


def test_an_estimate_reads_as_it_is() -> None:
    found = Estimate(0.0312, -0.01, 0.07, 0.2, 9)
    assert found.as_percent() == "+3.1 % [-1.0, +7.0]"
    assert str(found) == "+0.0312 [-0.0100, +0.0700]"
    assert not found.differs
