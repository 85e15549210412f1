"""Spearman's correlation: scipy's rho, the interval by hand, its coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tsprune.statistics import correlation, correlation_row, spearman


def test_rho_is_scipys_over_known_pairs() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal(40)
    y = x + 0.3 * rng.standard_normal(40)
    assert correlation(x, y).value == pytest.approx(stats.spearmanr(x, y).statistic)
    assert spearman([1, 2, 3, np.nan], [5, 6, 7, 0]) == pytest.approx(1)


def test_the_interval_by_hand() -> None:
    """Five pairs, rho 0.8: atanh(0.8) = 1.0986, error sqrt((1 + 0.32) / 2) = 0.8124."""
    found = correlation([1, 2, 3, 4, 5], [2, 1, 4, 3, 5])
    assert found.value == pytest.approx(0.8)
    reach = 1.959964 * 0.8124038
    assert (found.low, found.high) == pytest.approx((np.tanh(1.0986123 - reach), np.tanh(1.0986123 + reach)))
    assert found.p == pytest.approx(2 * stats.norm.sf(1.0986123 / 0.8124038))
    assert found.count == 5


def test_rankings_that_agree_fully_are_not_certain() -> None:
    few, many = correlation(range(4), range(4)), correlation(range(50), range(50))
    assert [few.value, few.high, many.value] == pytest.approx([1, 1, 1])
    assert few.low < 0 < 0.9 < many.low < 1
    assert few.p > 0.05 > many.p
    back = correlation(range(50), range(50, 0, -1))
    assert (back.value, back.high) == pytest.approx((-1, -many.low))


def test_too_few_pairs_and_constants_decide_nothing() -> None:
    assert np.isnan(correlation([1, 2, 3], [1, 3, 2]).low)
    assert np.isnan(correlation([1, 2, 3], [1, 3, 2]).p)
    assert np.isnan(correlation([1, 1, 1, 1], [1, 2, 3, 4]).value)
    row = correlation_row([1, 1, 1, 1], [1, 2, 3, 4])
    assert list(row) == ["rho", "low", "high", "p_value", "count"]


@pytest.mark.parametrize("count", [10, 40])
def test_the_interval_covers_the_truth(count: int) -> None:
    rng = np.random.default_rng(count)
    rho = 0.6
    truth = 6 / np.pi * np.arcsin(rho / 2)  # Spearman's of a normal pair
    covered = []
    for _ in range(1000):
        x, noise = rng.standard_normal((2, count))
        found = correlation(x, rho * x + np.sqrt(1 - rho**2) * noise)
        covered.append(found.low <= truth <= found.high)
    assert 0.93 <= np.mean(covered) <= 0.985
