"""GIFT-Eval's rules, as its documentation and published configurations have them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsprune.data.windows import (
    cut_windows,
    parse_frequency,
    prediction_length,
    season_length,
    window_count,
)
from tsprune.errors import TspruneError


@pytest.mark.parametrize(
    ("freq", "season", "short"),
    [
        ("H", 24, 48),
        ("h", 24, 48),
        ("15T", 96, 48),
        ("15min", 96, 48),
        ("10T", 144, 48),
        ("5min", 288, 48),
        ("10S", 360, 60),
        ("10s", 360, 60),
        ("M", 12, 12),
        ("ME", 12, 12),
        ("MS", 12, 12),
        ("D", 1, 30),
        ("W", 1, 8),
        ("W-THU", 1, 8),
    ],
)
def test_season_and_short_horizon(freq: str, season: int, short: int) -> None:
    assert season_length(freq) == season
    assert prediction_length(freq) == short
    assert prediction_length(freq, "medium") == 10 * short
    assert prediction_length(freq, "long") == 15 * short


@pytest.mark.parametrize(
    ("freq", "season", "horizon"),
    [
        ("A-DEC", 1, 6),
        ("YE", 1, 6),
        ("QS-DEC", 4, 8),
        ("Q-DEC", 4, 8),
        ("QE", 4, 8),
        ("M", 12, 18),
        ("W-SUN", 1, 13),
        ("D", 1, 14),
        ("H", 24, 48),
    ],
)
def test_m4_has_horizons_of_its_own(freq: str, season: int, horizon: int) -> None:
    assert season_length(freq) == season
    assert prediction_length(freq, m4=True) == horizon


@pytest.mark.parametrize("freq", ["", "weekly", "7", "D-", "15 apples"])
def test_unknown_frequencies_are_named(freq: str) -> None:
    with pytest.raises(TspruneError, match="unknown frequency"):
        parse_frequency(freq)


def test_a_frequency_without_horizon_is_named() -> None:
    with pytest.raises(TspruneError, match='no horizon for frequency "QS"'):
        prediction_length("QS")


@pytest.mark.parametrize(
    ("shortest", "horizon", "m4", "count"),
    [
        (17420, 48, False, 20),  # ett1/H/short: 37 capped at 20
        (17420, 480, False, 4),  # ett1/H/medium: ceil(3.6)
        (17420, 720, False, 3),  # ett1/H/long: ceil(2.4)
        (103, 8, False, 2),  # ett1/W
        (84, 12, False, 1),  # hospital
        (10, 30, False, 1),  # never none
        (100000, 48, True, 1),
    ],
)
def test_window_count(shortest: int, horizon: int, m4: bool, count: int) -> None:
    assert window_count(shortest, horizon, m4=m4) == count


def test_cut_by_hand() -> None:
    series = [
        np.arange(7, dtype=np.float32),
        np.arange(4, dtype=np.float32),
        10 + np.arange(5, dtype=np.float32),
    ]
    configuration, skipped = cut_windows(
        series, name="x", freq="D", horizon=2, season=1, windows=2, num_variates=3, domain="Nature"
    )
    assert configuration is not None
    assert [context.tolist() for context in configuration.contexts] == [
        [0, 1, 2],
        [0, 1, 2, 3, 4],
        [10],
        [10, 11, 12],
    ]
    assert configuration.targets.tolist() == [[3, 4], [5, 6], [11, 12], [13, 14]]
    assert configuration.series.tolist() == [0, 0, 2, 2]
    assert (configuration.num_variates, configuration.domain) == (3, "Nature")
    assert skipped == [("x, series 1", "4 steps; 2 windows of 2 need at least 5")]


def test_nothing_long_enough_is_listed() -> None:
    configuration, skipped = cut_windows(
        [np.zeros(4, np.float32)], name="x", freq="D", horizon=4, season=1, windows=1
    )
    assert configuration is None
    assert ("x", "no series is long enough for its windows") in skipped


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 30))
def test_windows_tile_the_end_of_a_series(horizon: int, windows: int, extra: int) -> None:
    series = np.arange(horizon * windows + 1 + extra, dtype=np.float32)
    configuration, skipped = cut_windows(
        [series], name="x", freq="D", horizon=horizon, season=1, windows=windows
    )
    assert configuration is not None
    assert not skipped
    np.testing.assert_array_equal(configuration.targets.ravel(), series[-horizon * windows :])
    for context, target in zip(configuration.contexts, configuration.targets, strict=True):
        np.testing.assert_array_equal(context, np.arange(target[0]))
        assert np.shares_memory(context, series)
