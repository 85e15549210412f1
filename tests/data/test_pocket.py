"""The embedded suite is the file that was reviewed, and every window of it can be judged."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tsprune.data import pocket, pocket_large
from tsprune.data.pocket import LARGE_FILE, POCKET_FILE, content_hash, series_table
from tsprune.evaluation import evaluate, geometric_mean_ratios

CONTENT = "fd76f7488e5949c2b9fa75c3a4affeec5073a61aea23e0fa4c3077aad9dc63ef"
LARGE_CONTENT = "c749e14fd99c646a269cc7bc6b4444d02e642c46fc4709d210ba1695f268b0f3"
WINDOWS = "ee4ad449cf175aaed3180f65c0eec34ee5b5d9655a431f4544b289bce38c33a0"


def test_content_is_the_recorded_one() -> None:
    assert content_hash(series_table()) == CONTENT
    assert content_hash(series_table(LARGE_FILE)) == LARGE_CONTENT


def test_windows_are_the_recorded_ones() -> None:
    # scores are comparable between versions only while this holds
    assert pocket().fingerprint == WINDOWS


def test_the_files_are_small() -> None:
    assert POCKET_FILE.stat().st_size + LARGE_FILE.stat().st_size <= 2 * 2**20


@pytest.mark.parametrize(
    "column", ["series", "dataset", "freq", "domain", "start", "source", "provenance", "licence"]
)
def test_every_series_is_described(column: str) -> None:
    for file in (POCKET_FILE, LARGE_FILE):
        assert all(series_table(file)[column].to_pylist())


def test_series_have_unique_names() -> None:
    names = [name for file in (POCKET_FILE, LARGE_FILE) for name in series_table(file)["series"].to_pylist()]
    assert len(set(names)) == len(names)


def test_shape_of_the_suite() -> None:
    suite = pocket()
    assert suite.skipped == ()
    assert 10 <= len(suite.configurations) <= 15
    assert 300 <= len(suite) <= 450
    assert {c.freq for c in suite.configurations} == {"H", "D", "W", "M", "A"}
    for c in suite.configurations:
        assert len(c) <= 60
        assert c.horizon <= 64
        assert c.targets.dtype == np.float32
        assert all(context.dtype == np.float32 for context in c.contexts)
    for freq in "HDW":
        assert (
            max(len(context) for c in suite.configurations if c.freq == freq for context in c.contexts)
            >= 1024
        )


def test_the_large_suite_begins_with_the_small_one() -> None:
    large = pocket_large()
    assert large.skipped == ()
    assert large.configurations[:15] == pocket().configurations
    assert len(large.configurations) == len({c.name for c in large.configurations}) == 32
    assert len(large) == len(pocket()) + 412
    (quarterly,) = (c for c in large.configurations if c.freq == "Q")
    assert (quarterly.horizon, quarterly.season) == (8, 4)


def test_no_series_decides_the_crps_of_its_configuration() -> None:
    """Of the datasets beyond `pocket`: CRPS is relative to the sum of the targets."""
    for c in pocket_large().configurations[15:]:
        sums = pd.Series([np.nansum(np.abs(target)) for target in c.targets])
        sizes = sums.groupby(np.array(c.series)).sum()
        assert len(sizes) == 1 or sizes.max() / sizes.sum() < 0.65, c.name


def test_seasonal_naive_is_defined_everywhere() -> None:
    frame = evaluate("seasonal-naive", pocket_large())
    assert frame.skipped == ()
    assert np.isfinite(frame[["MASE", "CRPS", "MSIS"]]).all(axis=None)
    assert (frame[["MASE", "CRPS"]] > 0).all(axis=None)
    assert geometric_mean_ratios(frame) == pytest.approx({"MASE": 1.0, "CRPS": 1.0})


def test_no_window_is_degenerate() -> None:
    for c in pocket_large().configurations:
        for target in c.targets:
            known = target[np.isfinite(target)]
            assert len(known)
            assert np.ptp(known) > 0
