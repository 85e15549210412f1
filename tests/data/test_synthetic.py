"""Synthetic series are the same on every processor: plans are searched and models recovered on them."""

from __future__ import annotations

import hashlib

import numpy as np

from tsprune.data.synthetic import series
from tsprune.data.training import draw

SERIES = "b51d1015a473a41423ac0276503209979b181aef633c2e4ea2598472301a9b13"
WINDOWS = "6d6c254a70d1192953973477cafe4f7e02d39d10b3b13e4af1991edcba33bb15"


def test_series_and_windows_are_the_recorded_ones() -> None:
    """In float32: float64 differs by some 1e-15 between processors, which rounding to float32 removes."""
    pool = series(64, 512, np.random.default_rng(0))
    assert hashlib.sha256(pool.astype("<f4").tobytes()).hexdigest() == SERIES
    windows = draw(pool, 200, 256, np.random.default_rng(1))
    assert hashlib.sha256(windows.astype("<f4").tobytes()).hexdigest() == WINDOWS


def test_series_are_standardised_and_unlike_each_other() -> None:
    pool = series(64, 512, np.random.default_rng(0))
    assert np.isfinite(pool).all()
    assert len({row.tobytes() for row in pool}) == 64
    np.testing.assert_allclose(pool.mean(1), 0, atol=1e-6)
    np.testing.assert_allclose(pool.std(1), 1, atol=1e-5)
