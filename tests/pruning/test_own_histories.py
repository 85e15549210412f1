"""Training histories from a suite: cut from its contexts, alike for the same seed and step."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from tsprune.data import Suite, from_arrays
from tsprune.evaluation.batching import SINGLE, ReadTogether
from tsprune.pruning.distillation import histories
from tsprune.pruning.own_histories import cut_histories, mixed_histories


def suite(variates: int = 1, steps: int = 90) -> Suite:
    """Three series whose values are their steps, each variate 1000 above the one before."""
    arrays = [np.arange(steps)[None] + 1000.0 * np.arange(variates)[:, None] + 10_000 * n for n in range(3)]
    return from_arrays(arrays, freq="h", horizon=10, windows=2)


def batches(share: float, count: int, first: int = 0) -> list[list[NDArray[np.float32]]]:
    found = mixed_histories(suite(), share, 7, first, 6, 64, SINGLE)
    return list(itertools.islice(found, count))


def test_without_a_share_they_are_the_synthetic_ones() -> None:
    for one, other in zip(batches(0.0, 3), histories(7, 0, 6, 64), strict=False):
        np.testing.assert_array_equal(one, other)


def test_a_pure_function_of_seed_and_step() -> None:
    whole = batches(0.5, 8)
    for one, other in zip(whole[5:], batches(0.5, 3, first=5), strict=True):
        np.testing.assert_array_equal(one, other)
    synthetic = [np.array_equal(a, b) for a, b in zip(whole, histories(7, 0, 6, 64), strict=False)]
    assert 0 < sum(synthetic) < 8


def test_histories_are_cut_from_contexts_and_never_from_targets() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        for history in cut_histories(suite(), 6, 32, rng, SINGLE):
            known = history[np.isfinite(history)]
            assert history.shape == (32,)
            assert (np.diff(known) == 1).all()
            assert known[-1] % 10_000 < 80  # the last target begins there
            assert len(known) >= 16
            assert np.isnan(history[: 32 - len(known)]).all()


def test_variates_of_a_window_stay_together_where_they_are_read_so() -> None:
    rng = np.random.default_rng(0)
    together = cut_histories(suite(3), 6, 32, rng, ReadTogether(variates=True))
    assert [history.shape for history in together] == [(3, 32)] * 2
    for history in together:
        np.testing.assert_array_equal(np.diff(history, axis=0), 1000)
    assert [history.shape for history in cut_histories(suite(3), 6, 32, rng, SINGLE)] == [(32,)] * 6


def test_series_that_do_not_vary_leave_the_synthetic_histories() -> None:
    flat = from_arrays(np.full((2, 90), 3.0), freq="h", horizon=10)
    assert cut_histories(flat, 6, 32, np.random.default_rng(0), SINGLE) == []
    for one, other in zip(
        itertools.islice(mixed_histories(flat, 1.0, 7, 0, 6, 64, SINGLE), 2),
        histories(7, 0, 6, 64),
        strict=False,
    ):
        np.testing.assert_array_equal(one, other)
