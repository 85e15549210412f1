"""Spearman's correlation against scipy's, and its null."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tsprune.evaluation.correlation import correlation, spearman


def test_correlation_and_its_null() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal(40)
    y = x + 0.3 * rng.standard_normal(40)
    related, unrelated = correlation(x, y), correlation(x, rng.standard_normal(40))
    assert related.rho == pytest.approx(stats.spearmanr(x, y).statistic)
    assert related.low < related.rho < related.high
    assert related.p_value < 0.01 < unrelated.p_value
    assert spearman([1, 2, 3, np.nan], [5, 6, 7, 0]) == pytest.approx(1)
    assert np.isnan(correlation([1, 1, 1], [1, 2, 3]).rho)
