"""Parroting and seasonality with and without heads: differences, series, intervals."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.suites import tiny
from tsprune.ablation import Ablation
from tsprune.data import Configuration, Suite
from tsprune.explain.traits import traits
from tsprune.models import Forecast
from tsprune.study.mechanism import measure
from tsprune.sweep import CLEAN, SweepResult

HORIZON, PERIOD, LENGTH = 24, 12, 96
HEADS = tiny("tiny-timesfm").anatomy.components("head")
SHARP, DIFFUSE = Ablation(HEADS[:1]), Ablation(HEADS[1:2])


def wave(count: int, start: int = 0) -> NDArray[np.float32]:
    return np.sin(2 * np.pi * np.arange(start, start + count) / PERIOD).astype(np.float32)


def noise(count: int, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(count).astype(np.float32)


def configuration(targets: NDArray[np.float32], owners: list[int]) -> Configuration:
    return Configuration(
        "a/M/short", "M", HORIZON, PERIOD, [wave(LENGTH)] * len(owners), targets, np.array(owners)
    )


def result(
    suite: Suite, forecasts: dict[Ablation, NDArray[np.float32]], rows: list[int] | None = None
) -> SweepResult:
    (c,) = suite.configurations
    chosen = list(range(len(c))) if rows is None else rows
    kept = {
        (ablation, c.name): Forecast(np.repeat(values[:, None], 9, axis=1))
        for ablation, values in forecasts.items()
    }
    return SweepResult({c.name: np.array(chosen)}, {}, kept, ())


def test_traits_of_a_wave_and_of_noise() -> None:
    c = configuration(np.zeros((2, HORIZON), np.float32), [0, 1])
    values = np.stack([wave(HORIZON), noise(HORIZON, 0)])
    found = traits(values, c, np.array([0, 1]), LENGTH)
    assert found["parroting"][0] == pytest.approx(1, abs=1e-5)
    assert found["seasonality"][0] == pytest.approx(1, abs=1e-5)
    assert found["parroting"][1] < 0.8
    assert found["seasonality"][1] < 0.8


def test_only_what_the_model_sees_can_be_parroted() -> None:
    secret = noise(HORIZON, 7)
    context = np.concatenate([secret, wave(LENGTH)])
    c = Configuration(
        "a/M/short", "M", HORIZON, PERIOD, [context], np.zeros((1, HORIZON), np.float32), np.array([0])
    )
    rows = np.array([0])
    assert traits(secret[None], c, rows, len(context))["parroting"][0] == pytest.approx(1, abs=1e-5)
    assert traits(secret[None], c, rows, LENGTH)["parroting"][0] < 0.9


def test_futures_with_gaps_have_no_traits() -> None:
    c = configuration(np.zeros((1, HORIZON), np.float32), [0])
    values = wave(HORIZON)[None].copy()
    values[0, 3] = np.nan
    found = traits(values, c, np.array([0]), LENGTH)
    assert np.isnan(found["parroting"]).all()
    assert np.isnan(found["seasonality"]).all()


def test_measure_by_hand() -> None:
    """Clean and diffuse forecasts are the wave, the sharp ones and the futures are noise."""
    count = 6
    waves = np.stack([wave(HORIZON)] * count)
    lost, futures = (np.stack([noise(HORIZON, s + 50 * k) for s in range(count)]) for k in (0, 1))
    suite = Suite("s", (configuration(futures, list(range(count))),))
    swept = result(suite, {CLEAN: waves, SHARP: lost, DIFFUSE: waves})
    found = measure(swept, suite, sharp=SHARP, diffuse=DIFFUSE, context_length=LENGTH, seed=0)
    rows = np.arange(count)
    of_noise, of_future = (traits(x, suite.configurations[0], rows, LENGTH) for x in (lost, futures))
    for trait in ("parroting", "seasonality"):
        assert found.clean[trait].mean == pytest.approx(1 - of_future[trait].mean(), abs=1e-5)
        assert found.sharp[trait].mean == pytest.approx(of_noise[trait].mean() - 1, abs=1e-5)
        assert found.diffuse[trait].mean == 0
        assert found.difference[trait].mean == pytest.approx(found.sharp[trait].mean, abs=1e-9)
        difference = found.difference[trait]
        assert difference.low < difference.mean < difference.high < 0
        assert difference.count == count


def test_windows_of_one_series_count_as_one() -> None:
    owners = [0, 0, 0, 0, 1]
    lost = np.stack([noise(HORIZON, 0)] * 4 + [wave(HORIZON)])
    waves = np.stack([wave(HORIZON)] * 5)
    suite = Suite("s", (configuration(waves, owners),))
    swept = result(suite, {CLEAN: waves, SHARP: lost, DIFFUSE: waves})
    found = measure(swept, suite, sharp=SHARP, diffuse=DIFFUSE, context_length=LENGTH, seed=0)
    alone = traits(lost[:1], suite.configurations[0], np.array([0]), LENGTH)["parroting"][0] - 1
    assert found.sharp["parroting"].count == 2
    assert found.sharp["parroting"].mean == pytest.approx(alone / 2, abs=1e-5)


def test_rows_are_matched_to_their_windows() -> None:
    """Forecasts of windows 1 and 2 only: the future of window 0 must not be looked at."""
    waves = np.stack([wave(HORIZON)] * 3)
    futures = np.stack([noise(HORIZON, 1), wave(HORIZON), wave(HORIZON)])
    suite = Suite("s", (configuration(futures, [0, 1, 2]),))
    swept = result(suite, {CLEAN: waves[1:], SHARP: waves[1:], DIFFUSE: waves[1:]}, rows=[1, 2])
    found = measure(swept, suite, sharp=SHARP, diffuse=DIFFUSE, context_length=LENGTH, seed=0)
    assert found.clean["parroting"].mean == pytest.approx(0, abs=1e-5)
    assert found.clean["parroting"].count == 2


def test_nothing_to_measure_is_no_number() -> None:
    flat = np.ones((2, HORIZON), np.float32)
    suite = Suite("s", (configuration(flat, [0, 1]),))
    swept = result(suite, {CLEAN: flat, SHARP: flat, DIFFUSE: flat})
    found = measure(swept, suite, sharp=SHARP, diffuse=DIFFUSE, context_length=LENGTH, seed=0)
    assert found.difference["parroting"].count == 0
    assert np.isnan(found.difference["parroting"].mean)
