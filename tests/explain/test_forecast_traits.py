"""Parroting, dominant period and seasonal share: cases with a known answer, and invariances."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tsprune.explain import dominant_period, mean_reversion, parroting, seasonal_share

some = settings(max_examples=40, deadline=None)
Floats = NDArray[np.float64]


def noise(count: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal(count)


def wave(period: float, count: int, phase: float = 0.0) -> Floats:
    return np.sin(2 * np.pi * np.arange(count) / period + phase)


# --- parroting -----------------------------------------------------------------------------------


@some
@given(st.integers(0, 180), st.integers(2, 20), st.integers(0, 1000))
def test_a_copy_of_the_context_is_parroted_wholly(start: int, length: int, seed: int) -> None:
    context = noise(200, seed)
    assert parroting(context[start : start + length], context) == pytest.approx(1)


def test_noise_is_parroted_less() -> None:
    scores = [parroting(noise(30, seed), noise(200, 99)) for seed in range(20)]
    assert 0 < max(scores) < 0.8


def test_parroting_by_hand() -> None:
    # segments 0 1 0 and 1 0 0 against 1 2 3: correlations 0 and -sqrt(3)/2
    assert parroting(np.array([1.0, 2, 3]), np.array([0.0, 1, 0, 0])) == pytest.approx(0, abs=1e-12)
    assert parroting(np.array([1.0, 2, 3]), np.array([1.0, 0, 0])) == pytest.approx(-math.sqrt(3) / 2)


@some
@given(st.floats(1e-6, 1e6), st.floats(-1e3, 1e3), st.floats(1e-6, 1e6), st.floats(-1e3, 1e3))
def test_scale_and_level_do_not_matter(a: float, b: float, c: float, d: float) -> None:
    forecast, context = noise(12, 1), noise(100, 2)
    expected = parroting(forecast, context)
    assert parroting(a * (forecast + b), c * (context + d)) == pytest.approx(expected, abs=1e-9)


def test_a_gap_in_the_context_is_bridged() -> None:
    context = noise(100)
    context[40:42] = np.nan
    context[0] = context[-1] = np.nan
    bridged = context.copy()
    bridged[40:42] = context[39] + (context[42] - context[39]) * np.array([1, 2]) / 3
    bridged[0], bridged[-1] = context[1], context[-2]
    assert parroting(bridged[35:45], context) == pytest.approx(1)
    assert parroting(noise(10, 5), context) == parroting(noise(10, 5), bridged)


@pytest.mark.parametrize(
    ("forecast", "context"),
    [
        (np.full(10, 3.3), noise(50)),
        (noise(10), np.full(50, 3.3)),
        (noise(10), np.full(50, np.nan)),
        (noise(10), noise(9)),
        (np.full(10, np.nan), noise(50)),
        (noise(1), noise(50)),
    ],
    ids=["constant forecast", "constant context", "unknown context", "short", "no forecast", "one step"],
)
def test_what_has_no_shape_has_no_parroting(forecast: Floats, context: Floats) -> None:
    assert math.isnan(parroting(forecast, context))


def test_constant_stretches_of_the_context_do_not_count() -> None:
    context = np.concatenate([np.full(50, 0.1), noise(20)])
    assert parroting(context[50:60], context) == pytest.approx(1)


# --- dominant period -----------------------------------------------------------------------------


@pytest.mark.parametrize("period", [4, 7, 12, 24])
@pytest.mark.parametrize("length", [60, 96, 101, 512, 1000])
def test_calendar_periods_are_found_exactly(period: int, length: int) -> None:
    assert dominant_period(wave(period, length, phase=0.3)) == period
    trended = 50 + 0.05 * np.arange(length) + wave(period, length, phase=1.3) + 0.2 * noise(length)
    assert dominant_period(trended) == pytest.approx(period, rel=0.02)


@some
@given(st.floats(3.0, 40.0), st.integers(200, 600))
def test_other_periods_are_found_between_the_frequencies(period: float, length: int) -> None:
    # the grid alone would be wrong by up to half of its spacing, 1 / (2 length)
    assert abs(1 / dominant_period(wave(period, length)) - 1 / period) < 0.3 / length


@some
@given(st.floats(1e-6, 1e6), st.floats(-1e3, 1e3))
def test_the_period_has_no_unit(scale: float, level: float) -> None:
    assert dominant_period(scale * (wave(12, 120) + level)) == 12


def test_gaps_do_not_hide_the_period() -> None:
    context = wave(24, 480)
    context[100:103] = np.nan
    context[:10] = np.nan
    assert dominant_period(context) == 24


@pytest.mark.parametrize(
    "context",
    [np.full(50, 7.7), np.full(50, np.nan), wave(4, 7), np.arange(100.0)],
    ids=["constant", "unknown", "short", "line"],
)
def test_what_does_not_repeat_has_no_period(context: Floats) -> None:
    assert math.isnan(dominant_period(context))


# --- seasonal share ------------------------------------------------------------------------------


@pytest.mark.parametrize("period", [4, 7, 12, 24])
def test_a_sinusoid_is_wholly_seasonal(period: int) -> None:
    for phase in (0.0, 0.7, 2.0):
        assert seasonal_share(wave(period, 2 * period + 3, phase), period) == pytest.approx(1)


def test_harmonics_are_seasonal_and_other_frequencies_are_not() -> None:
    harmonics = wave(24, 48) + 0.5 * wave(12, 48) + 2 * wave(8, 48)
    assert seasonal_share(harmonics, 24) == pytest.approx(1)
    for other in (48, 16, 6):  # on the grid of 48 steps, so orthogonal to period 24 and its harmonics
        assert seasonal_share(wave(other, 48), 24) == pytest.approx(0, abs=1e-12)
    # equal powers: one half
    assert seasonal_share(wave(24, 48) + wave(16, 48), 24) == pytest.approx(0.5)


@some
@given(st.floats(1e-6, 1e6), st.floats(-1e3, 1e3), st.integers(0, 100))
def test_the_share_has_no_unit_and_lies_between_0_and_1(scale: float, level: float, seed: int) -> None:
    values = noise(48, seed)
    share = seasonal_share(values, 12)
    assert 0 <= share <= 1
    assert seasonal_share(scale * (values + level), 12) == pytest.approx(share, abs=1e-9)


@pytest.mark.parametrize(
    ("values", "period"),
    [(np.full(48, 0.1), 12.0), (wave(12, 11), 12.0), (wave(12, 48), math.nan), (wave(12, 48), 1.5)],
    ids=["constant", "less than a period", "no period", "faster than the samples"],
)
def test_no_share_where_there_is_nothing_to_measure(values: Floats, period: float) -> None:
    assert math.isnan(seasonal_share(values, period))


def test_mean_reversion_by_hand() -> None:
    """Half of the distance to the mean (0) is lost with each step; or all, or none, or it doubles."""
    context = np.array([-1.0, 1.0, -4.0, 4.0, -8.0, 8.0])
    assert mean_reversion(np.array([4.0, 2.0, 1.0]), context) == pytest.approx(0.5)
    assert mean_reversion(np.zeros(3), context) == pytest.approx(1)
    assert mean_reversion(np.full(3, 8.0), context) == pytest.approx(0)
    assert mean_reversion(np.array([16.0, 32.0]), context) == pytest.approx(-1)
    assert np.isnan(mean_reversion(np.zeros(3), np.zeros(5)))
    shifted = mean_reversion(np.array([4.0, 2.0, 1.0]) * 3 + 100, context * 3 + 100)
    assert shifted == pytest.approx(0.5)
