"""Training windows are a pure function of the seed and the step."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from tsprune.data import training
from tsprune.data.training import CLIP, batches, draw


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "SERIES_PER_SHARD", 8)
    monkeypatch.setattr(training, "WINDOWS_PER_SERIES", 3)


def stream(first: int, count: int, *, seed: int = 5, batch: int = 6) -> list[np.ndarray]:
    return list(islice(batches(seed, first, batch, 40, 100), count))


@pytest.mark.parametrize("step", [0, 1, 3, 4, 5, 8, 11])
def test_a_resumed_stream_goes_on_where_it_stopped(step: int) -> None:
    """A shard lasts 8 * 3 / 6 = 4 steps: inside one, at its borders, and beyond several."""
    whole = stream(0, 13)
    resumed = stream(step, 13 - step)
    assert len(resumed) == 13 - step
    for one, other in zip(resumed, whole[step:], strict=True):
        np.testing.assert_array_equal(one, other)


def test_no_two_batches_and_no_two_seeds_are_alike() -> None:
    flat = [batch.tobytes() for batch in stream(0, 13) + stream(0, 13, seed=6)]
    assert len(set(flat)) == 26


def test_batches_larger_than_a_shard() -> None:
    assert [len(batch) <= 100 for batch in stream(0, 3, batch=100)] == [True] * 3


def test_windows_are_standardised_clipped_and_vary() -> None:
    for batch in stream(0, 8, batch=50):
        assert batch.dtype == np.float32
        assert batch.shape[1] == 40
        assert np.abs(batch).max() <= CLIP
        clipped = (np.abs(batch) >= CLIP).any(1)
        np.testing.assert_allclose(batch[~clipped].mean(1), 0, atol=1e-4)
        np.testing.assert_allclose(batch[~clipped].std(1), 1, atol=1e-3)


def test_constant_series_make_no_windows() -> None:
    pool = np.full((2, 100), 3.0, dtype=np.float32)
    assert draw(pool, 20, 40, np.random.default_rng(0)).shape == (0, 40)
