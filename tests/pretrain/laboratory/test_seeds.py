"""Seeds as replicates: intervals by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from pretrain.laboratory import seeds

NOTHING = pd.Series(dtype=float)


def test_a_mean_over_seeds_by_hand() -> None:
    """Mean 2, deviation 1, 3 seeds: t = (2 - limit) sqrt(3), 2 -+ 4.303 / sqrt(3)."""
    found = seeds.mean_of(pd.Series([1.0, 2.0, 3.0, np.nan]))
    assert (found.value, found.low, found.high) == pytest.approx((2, -0.484, 4.484), abs=1e-3)
    assert found.p == pytest.approx(0.0742, abs=1e-4)
    assert found.count == 3
    assert seeds.mean_of(pd.Series([1.0, 2.0, 3.0]), limit=2.0).p == 1.0
    assert math.isnan(seeds.mean_of(pd.Series([2.0])).p)
    assert math.isnan(seeds.mean_of(pd.Series([2.0, 2.0])).p)
    assert math.isnan(seeds.mean_of(NOTHING).value)


def test_a_difference_of_conditions_by_hand() -> None:
    """-3 -+ t(4) sqrt(2 / 3): deviations are 1, of 3 seeds each."""
    found = seeds.difference(pd.Series([1.0, 2.0, 3.0]), pd.Series([4.0, 5.0, 6.0]))
    assert (found.value, found.low, found.high) == pytest.approx((-3, -5.267, -0.733), abs=1e-3)
    one_seed = seeds.difference(pd.Series([1.0, 2.0]), pd.Series([4.0]))
    assert one_seed.value == -2.5
    assert not one_seed.has_interval
    assert math.isnan(seeds.difference(NOTHING, pd.Series([1.0])).value)


def test_interval_over_seeds_by_hand() -> None:
    """Mean 2, deviation 1, 3 seeds: 2 -+ 4.303 / sqrt(3)."""
    assert seeds.over_seeds(pd.Series([1.0, 2.0, 3.0, np.nan])) == "2.000 [-0.484, 4.484]"
    assert seeds.over_seeds(pd.Series([2.0])) == "2.000"
    assert seeds.over_seeds(pd.Series([2.0, 2.0])) == "2.000 (each)"
    assert seeds.over_seeds(pd.Series([np.nan])) == "not measured"
