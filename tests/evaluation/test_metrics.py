"""Metrics: worked by hand where that is possible, against gluonts.ev on random data."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from gluonts.dataset.split import split as gluonts_split
from gluonts.ev.metrics import (
    MAE,
    MAPE,
    MSE,
    MSIS,
    ND,
    NRMSE,
    RMSE,
    SMAPE,
    MeanWeightedSumQuantileLoss,
)
from gluonts.ev.metrics import MASE as GLUONTS_MASE
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.stats import spearmanr

from tsprune.errors import TspruneError
from tsprune.evaluation.leaderboard import leaderboard_metrics
from tsprune.evaluation.metrics import (
    CRPS,
    CRPS_LEVELS,
    MASE,
    WindowStatistics,
    exponential_tails,
    seasonal_errors,
    spearman_distance,
    window_statistics,
)

with warnings.catch_warnings():
    # gluonts advises a faster JSON package on import
    warnings.simplefilter("ignore", UserWarning)
    from gluonts.model import evaluate_forecasts
    from gluonts.model.forecast import QuantileForecast

NAN = np.nan


@pytest.fixture(autouse=True)
def _quiet_gluonts() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def statistics_of(
    median: list[list[float]], targets: list[list[float]], scale: list[float]
) -> WindowStatistics:
    """Statistics of point forecasts: all nine quantiles equal."""
    point = np.array(median)
    return window_statistics(
        quantiles=np.repeat(point[:, None], 9, axis=1),
        levels=CRPS_LEVELS,
        targets=np.array(targets),
        season_errors=np.array(scale),
    )


# --- seasonal errors -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("history", "season", "expected"),
    [
        ([1, 2, 4, 7], 1, 2.0),  # 1, 2, 3
        ([1, 2, 4, 7], 2, 4.0),  # 3, 5
        ([1, NAN, 4, 7], 1, 3.0),  # only 4 -> 7 has both ends
        ([1, NAN, 4, 7], 2, 3.0),  # only 1 -> 4
        ([1, 2, 4], 7, 1.5),  # shorter than a season: first differences
        ([5, 5, 5], 1, 0.0),
        ([5], 1, 0.0),  # no pair at all
        ([1, 2], 2, 0.0),
        ([NAN, NAN], 1, 0.0),
    ],
)
def test_seasonal_error_by_hand(history: list[float], season: int, expected: float) -> None:
    assert seasonal_errors([history], season) == pytest.approx([expected])


def test_seasonal_errors_accumulate_in_double_precision() -> None:
    # one difference of 2^25 and four of 1: float32 sees 2^25 + 4 only if it adds the ones first
    history = np.array([2**25, 0, 1, 0, 1, 0], dtype=np.float32)
    assert seasonal_errors([history], 1)[0] == (2**25 + 4) / 5


# --- worked examples -----------------------------------------------------------------------------


def test_point_forecast_by_hand() -> None:
    stats = statistics_of(median=[[1, 2], [3, 3]], targets=[[2, 4], [3, NAN]], scale=[2, 1])
    assert MASE.of(stats) == pytest.approx((1 / 2 + 2 / 2 + 0) / 3)
    # twice the pinball loss of equal quantiles averages to the absolute error
    assert CRPS.of(stats) == pytest.approx((1 + 2 + 0) / (2 + 4 + 3))
    metrics = leaderboard_metrics(stats)
    assert metrics["MSE[mean]"] == pytest.approx((1 + 4 + 0) / 3)
    assert metrics["MAE[0.5]"] == pytest.approx(1.0)
    assert metrics["MAPE[0.5]"] == pytest.approx((1 / 2 + 2 / 4 + 0) / 3)
    assert metrics["sMAPE[0.5]"] == pytest.approx((2 / 3 + 4 / 6 + 0) / 3)
    # a point interval costs 40 times the distance (2 / alpha)
    assert metrics["MSIS"] == pytest.approx(40 * (1 / 2 + 2 / 2 + 0) / 3)


def test_quantile_loss_by_hand() -> None:
    # quantiles .1 to .9 are 1 to 9, the target is 5: losses 2 * .1 * 4, 2 * .2 * 3, ... both ways
    stats = window_statistics(
        quantiles=np.arange(1.0, 10.0).reshape(1, 9, 1),
        levels=CRPS_LEVELS,
        targets=np.array([[5.0]]),
        season_errors=np.ones(1),
    )
    assert stats.quantile_loss_sum == pytest.approx([2 * 2 * (0.4 + 0.6 + 0.6 + 0.4) / 9])


def test_a_point_with_zero_seasonal_error_does_not_count() -> None:
    stats = statistics_of(median=[[1.0], [1.0]], targets=[[3.0], [2.0]], scale=[0, 4])
    assert MASE.of(stats) == pytest.approx(0.25)
    assert CRPS.of(stats) == pytest.approx(3 / 5)


def test_metrics_of_nothing_known_are_undefined() -> None:
    metrics = leaderboard_metrics(statistics_of(median=[[1.0]], targets=[[NAN]], scale=[1]))
    assert all(np.isnan(value) for value in metrics.values())


def test_an_undefined_forecast_is_not_hidden() -> None:
    assert np.isnan(MASE.of(statistics_of(median=[[NAN, 1.0]], targets=[[1.0, 1.0]], scale=[1])))


def test_a_missing_level_is_named() -> None:
    with pytest.raises(TspruneError, match=r"no quantile at level 0\.2"):
        window_statistics(
            quantiles=np.zeros((1, 3, 1)),
            levels=(0.1, 0.5, 0.9),
            targets=np.zeros((1, 1)),
            season_errors=np.ones(1),
        )


# --- against gluonts -----------------------------------------------------------------------------

GLUONTS_METRICS = [
    MSE(forecast_type="mean"),
    MSE(forecast_type="0.5"),
    MAE(),
    GLUONTS_MASE(),
    MAPE(),
    SMAPE(),
    MSIS(),
    RMSE(),
    NRMSE(),
    ND(),
    MeanWeightedSumQuantileLoss(quantile_levels=list(CRPS_LEVELS)),
]


def gluonts_metrics(
    contexts: list[NDArray[np.float32]],
    targets: NDArray[np.float32],
    quantiles: NDArray[np.float32],
    season: int,
) -> dict[str, float]:
    horizon = targets.shape[1]
    start = pd.Period("2020-01-01", freq="D")
    entries = [
        {"item_id": str(i), "start": start, "target": np.concatenate([context, target])}
        for i, (context, target) in enumerate(zip(contexts, targets, strict=True))
    ]
    _, template = gluonts_split(entries, offset=-horizon)
    forecasts = [
        QuantileForecast(window, start, [str(level) for level in CRPS_LEVELS], item_id=str(i))
        for i, window in enumerate(quantiles)
    ]
    frame = evaluate_forecasts(
        forecasts,
        test_data=template.generate_instances(prediction_length=horizon, windows=1),
        metrics=GLUONTS_METRICS,
        axis=None,
        mask_invalid_label=True,
        seasonality=season,
        batch_size=7,
    )
    return {name: float(frame[name].iloc[0]) for name in frame.columns}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("season", [1, 7, 24])
@pytest.mark.parametrize("seed", range(4))
def test_metrics_equal_gluonts(season: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    count, horizon = 25, 9
    contexts = [
        (rng.standard_normal(rng.integers(1, 80)) * rng.uniform(0.1, 50) + 3).astype(np.float32)
        for _ in range(count)
    ]
    targets = (rng.standard_normal((count, horizon)) * 5).astype(np.float32)
    quantiles = np.sort(rng.standard_normal((count, 9, horizon)) * 5, axis=1).astype(np.float32)
    for context in contexts[::3]:
        context[rng.random(len(context)) < 0.3] = NAN
    targets[rng.random(targets.shape) < 0.2] = NAN
    targets[rng.random(targets.shape) < 0.1] = 0
    targets[4] = NAN
    contexts[5] = np.full(40, 2, np.float32)  # constant: seasonal error 0
    contexts[6] = np.full(40, NAN, np.float32)
    quantiles[7] = 0
    ours = leaderboard_metrics(
        window_statistics(
            quantiles=quantiles,
            levels=CRPS_LEVELS,
            targets=targets,
            season_errors=seasonal_errors(contexts, season),
        )
    )
    theirs = gluonts_metrics(contexts, targets, quantiles, season)
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, rel=1e-6), name


@given(
    arrays(np.float64, (3, 9, 4), elements=st.floats(-1e3, 1e3)),
    st.sampled_from([CRPS_LEVELS, (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)]),
)
def test_tails_equal_gluonts(values: NDArray[np.float64], levels: tuple[float, ...]) -> None:
    quantiles = np.sort(values, axis=1)
    # gluonts adds 1e-8 here and there against divisions by zero; hence the tolerance, in units of 1000
    ours = exponential_tails(quantiles, levels)
    for window, tails in zip(quantiles, ours, strict=True):
        forecast = QuantileForecast(window, pd.Period("2020", freq="D"), [str(level) for level in levels])
        np.testing.assert_allclose(tails[0], forecast.quantile(0.025), rtol=1e-6, atol=1e-3)
        np.testing.assert_allclose(tails[1], forecast.quantile(0.975), rtol=1e-6, atol=1e-3)


# --- laws ----------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.lists(st.booleans(), min_size=6, max_size=6))
def test_statistics_of_a_subset_are_those_of_its_windows(seed: int, keep: list[bool]) -> None:
    rng = np.random.default_rng(seed)
    quantiles, targets = rng.standard_normal((6, 9, 3)), rng.standard_normal((6, 3))
    scale, mask = rng.uniform(0.5, 2, 6), np.array(keep)

    def statistics(rows: NDArray[np.bool_]) -> WindowStatistics:
        return window_statistics(
            quantiles=quantiles[rows], levels=CRPS_LEVELS, targets=targets[rows], season_errors=scale[rows]
        )

    everything = statistics(np.ones(6, np.bool_))
    for field in dataclasses.fields(WindowStatistics):
        np.testing.assert_array_equal(
            getattr(everything.select(mask), field.name), getattr(statistics(mask), field.name)
        )
    rejoined = WindowStatistics.concatenate([everything.select(mask), everything.select(~mask)])
    assert len(rejoined) == 6
    assert MASE.of(rejoined) == pytest.approx(MASE.of(everything))
    assert CRPS.of(rejoined) == pytest.approx(CRPS.of(everything))


@given(st.floats(1e-3, 1e3), st.integers(0, 1000))
def test_mase_and_crps_do_not_depend_on_the_unit(factor: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    context, targets = rng.standard_normal(30), rng.standard_normal((1, 5))
    quantiles = np.sort(rng.standard_normal((1, 9, 5)), axis=1)

    def metrics(unit: float) -> tuple[float, float]:
        stats = window_statistics(
            quantiles=quantiles * unit,
            levels=CRPS_LEVELS,
            targets=targets * unit,
            season_errors=seasonal_errors([context * unit], 4),
        )
        return MASE.of(stats), CRPS.of(stats)

    assert metrics(factor) == pytest.approx(metrics(1.0))


# --- Spearman distance ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 400], 0.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], 2.0),
        ([1, 2, 3], [1, 3, 2], 0.5),  # rho = 1 - 6 * 2 / (3 * 8) = 1/2
        ([1, 1, 2], [1, 2, 3], 1 - np.sqrt(3) / 2),  # ranks 1.5, 1.5, 3 against 1, 2, 3
        ([5, 5, 5], [5, 5, 5], 0.0),
        ([5, 5, 5], [7, 7, 7], 0.0),
        ([5, 5, 5], [1, 2, 3], 1.0),
        ([1, 2, 3], [5, 5, 5], 1.0),
        ([3], [4], 0.0),  # one step is constant
    ],
)
def test_spearman_distance_by_hand(a: list[float], b: list[float], expected: float) -> None:
    assert spearman_distance([a], [b]) == pytest.approx([expected])


@given(
    arrays(np.float64, (4, 12), elements=st.integers(-5, 5).map(float)),
    arrays(np.float64, (4, 12), elements=st.integers(-5, 5).map(float)),
)
def test_spearman_distance_equals_scipy_and_is_symmetric(
    a: NDArray[np.float64], b: NDArray[np.float64]
) -> None:
    distance = spearman_distance(a, b)
    np.testing.assert_array_equal(distance, spearman_distance(b, a))
    np.testing.assert_allclose(spearman_distance(a, a), 0, atol=1e-12)
    for row, (x, y) in enumerate(zip(a, b, strict=True)):
        if np.ptp(x) and np.ptp(y):
            assert distance[row] == pytest.approx(1 - spearmanr(x, y).statistic, abs=1e-12)


def test_spearman_distance_of_an_undefined_forecast_is_undefined() -> None:
    assert np.isnan(spearman_distance([[1, NAN, 3]], [[1, 2, 3]])[0])
