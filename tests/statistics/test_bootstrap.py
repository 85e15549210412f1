"""The studentised bootstrap: written out, enumerated against drawn, and its Monte Carlo error."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from tsprune.statistics import bootstrap
from tsprune.statistics.bootstrap import DRAWS, MONTE_CARLO, enumerated, inference, standard_errors


def one_column(values: list[float]) -> np.ndarray:
    return np.array(values, dtype=float)[None, :, None]


@pytest.mark.parametrize("count", [2, 3, 4])
def test_few_units_have_students_interval(count: int) -> None:
    values = np.random.default_rng(count).standard_normal(count) + 1
    mean, low, high, p, units = inference(one_column(values.tolist()), level=0.95, seed=0)
    expected = stats.ttest_1samp(values, 0)
    limits = expected.confidence_interval(0.95)
    assert (mean[0], low[0], high[0]) == pytest.approx((values.mean(), limits.low, limits.high))
    assert p[0] == pytest.approx(expected.pvalue)
    assert units[0] == count


def test_all_draws_are_enumerated() -> None:
    times, weights = enumerated(5)
    assert len(times) == math.comb(9, 5)
    assert weights.sum() == pytest.approx(1)
    assert (times.sum(axis=1) == 5).all()
    # each unit alone: 1 / 5^5; every unit once: 5! / 5^5
    by_times = {tuple(row): weight for row, weight in zip(times.astype(int).tolist(), weights, strict=True)}
    assert by_times[5, 0, 0, 0, 0] == pytest.approx(1 / 5**5)
    assert by_times[1, 1, 1, 1, 1] == pytest.approx(120 / 5**5)


def test_the_studentised_interval_written_out() -> None:
    """All 5^5 draws of five units in a loop."""
    x = np.array([0.1, 0.4, -0.2, 1.5, 0.3])
    pivots = []
    for draw in itertools.product(range(5), repeat=5):
        sample = x[list(draw)]
        error = sample.std(ddof=1) / np.sqrt(5)
        shift = sample.mean() - x.mean()
        pivots.append(shift / error if error > 1e-12 else math.copysign(math.inf, shift))
    ordered, error = np.sort(pivots), x.std(ddof=1) / np.sqrt(5)
    places = [math.ceil(share * 5**5) - 1 for share in (0.025, 0.975)]
    mean, low, high, p, _ = inference(one_column(x.tolist()), level=0.95, seed=0)
    assert low[0] == pytest.approx(x.mean() - ordered[places[1]] * error)
    assert high[0] == pytest.approx(x.mean() - ordered[places[0]] * error)
    observed = x.mean() / error
    tails = np.mean(ordered >= observed), np.mean(ordered <= observed)
    assert p[0] == pytest.approx(2 * min(tails))
    assert mean[0] == pytest.approx(x.mean())


def test_up_to_eight_units_no_seed_matters() -> None:
    values = np.random.default_rng(0).standard_normal((1, 8, 3))
    first, second = (inference(values, level=0.95, seed=seed) for seed in (0, 1))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_enumerated_and_drawn_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).gamma(2, 1, (1, 8, 4)) - 2
    exact = inference(values, level=0.95, seed=0)
    monkeypatch.setattr(bootstrap, "EXACT", 0)
    drawn = inference(values, level=0.95, seed=0)
    width = exact[2] - exact[1]
    for limit in (1, 2):
        assert (np.abs(exact[limit] - drawn[limit]) < 4 * MONTE_CARLO * width).all()
    np.testing.assert_allclose(exact[3], drawn[3], atol=0.02)


def test_limits_move_little_with_the_seed() -> None:
    """The Monte Carlo error of a limit is below 2 % of the width, also of skewed values."""
    values = np.random.default_rng(3).lognormal(0, 1, (1, 15, 6))
    runs = [inference(values, level=0.95, seed=seed) for seed in range(12)]
    low, high = np.array([run[1] for run in runs]), np.array([run[2] for run in runs])
    width = (high - low).mean(axis=0)
    # a standard deviation estimated from 12 runs is off by a fifth
    assert (low.std(axis=0, ddof=1) < 1.6 * MONTE_CARLO * width).all()
    assert (high.std(axis=0, ddof=1) < 1.6 * MONTE_CARLO * width).all()
    assert DRAWS >= 10_000


def test_standard_errors_of_a_crossed_layout() -> None:
    """Two draws, two units: deviations of units 1, of draws 2, interaction 0."""
    x = np.array([[-3.0, -1.0], [1.0, 3.0]])[:, :, None]
    # means of units -1, 1: variance 2 / 2 units; of draws -2, 2: variance 8 / 2 draws
    assert standard_errors(x)[0] == pytest.approx(np.sqrt(1 + 4))
    only = np.array([[1.0, -1.0], [-1.0, 1.0]])[:, :, None]  # interaction alone: nothing of either
    assert standard_errors(only)[0] == 0


@pytest.mark.parametrize(("of_units", "of_draws", "of_both"), [(1, 0, 0), (1, 1, 1), (0, 1, 0.5)])
def test_crossed_intervals_cover_the_truth(of_units: float, of_draws: float, of_both: float) -> None:
    rng = np.random.default_rng(5)
    runs, draws, count = 300, 5, 6
    values = of_units * rng.standard_normal((1, count, runs)) + of_draws * rng.standard_normal(
        (draws, 1, runs)
    )
    values = values + of_both * rng.standard_normal((draws, count, runs))
    _, low, high, _, _ = inference(values, level=0.95, seed=0)
    assert 0.90 <= np.mean((low <= 0) & (high >= 0)) <= 0.99


def test_values_without_spread() -> None:
    values = np.zeros((1, 6, 2))
    values[:, :, 1] = 0.3
    mean, low, high, p, _ = inference(values, level=0.95, seed=0)
    assert low.tolist() == high.tolist() == mean.tolist() == pytest.approx([0.0, 0.3])
    assert p.tolist() == [1.0, 0.0]
