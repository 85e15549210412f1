"""Seasonal Naive: worked by hand, and equal to what GIFT-Eval's leaderboard publishes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tsprune.data import Configuration, gift_eval
from tsprune.evaluation import evaluate, geometric_mean_ratios, seasonal_naive
from tsprune.evaluation.baseline import naive_quantiles

NAN = np.nan
# the normal distribution's .9 quantile
Z90 = 1.2815515655446004


def test_last_season_repeated_with_growing_normal_intervals() -> None:
    # seasonal differences of lag 2: 2, 0 -> sigma^2 = 2; doubled in the second season, tripled in the third
    quantiles = naive_quantiles([[1, 5, 3, 5]], horizon=5, season=2)
    assert quantiles.shape == (1, 9, 5)
    np.testing.assert_allclose(quantiles[0, 4], [3, 5, 3, 5, 3])
    spread = Z90 * np.sqrt([2, 2, 4, 4, 6])
    np.testing.assert_allclose(quantiles[0, 8], np.array([3, 5, 3, 5, 3]) + spread)
    np.testing.assert_allclose(quantiles[0, 0], np.array([3, 5, 3, 5, 3]) - spread)


@pytest.mark.parametrize(
    ("history", "season", "expected"),
    [
        ([1, NAN, 3, NAN], 2, [3, 3]),  # 1, 1, 3, 3
        ([NAN, NAN, 4, 6], 4, [4, 4]),  # in front the first known value
        ([NAN, NAN], 1, [0, 0]),
        ([7, 9], 5, [9, 9]),  # shorter than a season: the last value
        ([8], 1, [8, 8]),
    ],
)
def test_missing_values_and_short_histories(history: list[float], season: int, expected: list[float]) -> None:
    quantiles = naive_quantiles([history], horizon=2, season=season)
    np.testing.assert_allclose(quantiles[0, 4], expected)
    assert np.isfinite(quantiles).all()


def test_forecast_of_a_configuration() -> None:
    configuration = Configuration(
        name="x/D/short",
        freq="D",
        horizon=3,
        season=1,
        contexts=[np.array([1, 2], np.float32), np.array([4], np.float32)],
        targets=np.zeros((2, 3), np.float32),
        series=np.arange(2),
    )
    forecast = seasonal_naive(configuration)
    np.testing.assert_array_equal(forecast.median, [[2, 2, 2], [4, 4, 4]])
    assert forecast.quantiles.dtype == np.float32


def test_equal_to_the_published_leaderboard(shared: Path) -> None:
    suite = gift_eval(shared / "data" / "gift_eval")
    table = evaluate("seasonal-naive", suite)
    frame = table.frame.set_index("configuration")
    published = pd.read_csv(shared / "data" / "published_gift_eval_scores.csv")
    published = published[published["model"] == "seasonal_naive"].set_index("config").loc[frame.index]
    assert len(frame) == 23
    np.testing.assert_allclose(frame["MASE"], published["MASE"], rtol=1e-6)
    np.testing.assert_allclose(frame["CRPS"], published["CRPS"], rtol=1e-6)
    assert table.skipped == ()
    assert geometric_mean_ratios(table) == pytest.approx({"MASE": 1.0, "CRPS": 1.0})
