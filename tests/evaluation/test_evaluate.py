"""Evaluation: batching changes nothing, and what cannot be forecast is listed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray
from pandas.testing import assert_frame_equal
from torch import Tensor, nn

from tsprune.anatomy import Anatomy
from tsprune.data import Configuration, Suite
from tsprune.errors import TspruneError
from tsprune.evaluation import (
    EVALUATION,
    MASE,
    Truth,
    evaluate,
    forecast_statistics,
    geometric_mean_ratios,
    prepare,
    seasonal_naive,
)
from tsprune.models.contexts import checked_contexts
from tsprune.models.forecaster import Forecast, Forecaster


class LastValue(Forecaster):
    """A whole model without weights: repeats the last observed value, +- 1 at the outer levels."""

    name = "last-value"
    family = "naive"
    upstream = None

    def __init__(self, context_length: int = 10, samples: int = 0, refuses: float = np.inf) -> None:
        self.module = nn.Linear(1, 1)
        self.anatomy = Anatomy(stacks=(), d_model=1)
        self.context_length = context_length
        self.samples = samples
        self.refuses = refuses
        self.seen: list[int] = []

    def forecast(self, contexts: Sequence[ArrayLike], horizon: int) -> Forecast:
        arrays = checked_contexts(contexts, horizon)
        self.seen += [len(array) for array in arrays]
        last = np.array([array[np.isfinite(array)][-1] for array in arrays], dtype=np.float32)
        for array in arrays:
            array[:] = 0  # as careless upstream code would
        if (last == self.refuses).any():
            raise TspruneError("cannot forecast a thirteen")
        median = np.repeat(last[:, None], horizon, axis=1)
        quantiles = median[:, None] + np.linspace(-1, 1, 9, dtype=np.float32)[None, :, None]
        paths = np.repeat(median[:, None], self.samples, axis=1) if self.samples else None
        return Forecast(quantiles=quantiles, samples=paths)

    def teacher_forced(self, contexts: Sequence[ArrayLike]) -> Tensor:
        return torch.zeros(len(contexts))

    def save(self, directory: Path) -> None:
        directory.mkdir()


def configuration_of(
    contexts: list[NDArray[np.float32]], horizon: int = 3, name: str = "x/D/short"
) -> Configuration:
    rng = np.random.default_rng(len(contexts))
    return Configuration(
        name=name,
        freq="D",
        horizon=horizon,
        season=1,
        contexts=contexts,
        targets=rng.standard_normal((len(contexts), horizon)).astype(np.float32),
        series=np.arange(len(contexts)),
    )


def random_configuration(lengths: Sequence[int], name: str = "x/D/short") -> Configuration:
    rng = np.random.default_rng(0)
    return configuration_of([rng.standard_normal(n).astype(np.float32) for n in lengths], name=name)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(1, 13))
def test_batching_changes_nothing(lengths: list[int], batch_size: int) -> None:
    configuration = random_configuration(lengths)
    contexts = [context.copy() for context in configuration.contexts]
    at_once = truth(configuration).statistics(LastValue(context_length=100).forecast(contexts, 3))
    (batched,) = forecast_statistics(LastValue(context_length=5), [configuration], batch_size=batch_size)
    assert batched.statistics is not None
    np.testing.assert_array_equal(batched.rows, np.arange(len(lengths)))
    np.testing.assert_array_equal(batched.statistics.scaled_error_sum, at_once.scaled_error_sum)
    np.testing.assert_array_equal(batched.statistics.quantile_loss_sum, at_once.quantile_loss_sum)


def test_configurations_of_one_horizon_share_batches_and_nothing_else() -> None:
    """Every row is what the configuration alone would have, also next to one that is refused."""
    configurations = [
        random_configuration([5, 9, 30], "a"),
        dataclasses.replace(random_configuration([4, 8], "b"), horizon=2, targets=np.ones((2, 2), "f4")),
        configuration_of([np.array([3, 13], np.float32), np.array([1, 2, 4], np.float32)], name="c"),
    ]
    model = LastValue(refuses=13)
    table = evaluate(model, Suite("s", tuple(configurations)), batch_size=64)
    frame = table.frame
    assert model.seen[:5] == [10, 9, 5, 3, 2]  # "a" and "c" together
    assert frame["configuration"].tolist() == ["a", "b", "c"]
    assert tuple(frame.columns) == EVALUATION.names
    assert frame["windows"].tolist() == [3, 2, 1]
    untimed = [column for column in frame.columns if not column.startswith("seconds")]
    for index, configuration in enumerate(configurations):
        alone = evaluate(LastValue(refuses=13), Suite("s", (configuration,)))
        assert_frame_equal(frame.iloc[[index]].reset_index(drop=True)[untimed], alone[untimed])
    assert table.skipped == (("c, window 0", "cannot forecast a thirteen"),)
    assert (frame["seconds_forward"] > 0).all()


def truth(configuration: Configuration) -> Truth:
    return Truth(configuration.targets, prepare(configuration).season_errors)


def test_contexts_are_cut_but_seasonal_errors_see_all_history() -> None:
    model = LastValue(context_length=4)
    configuration = configuration_of([np.array([100, 0, 1, 2, 3, 4], np.float32)])
    evaluate(model, Suite("s", (configuration,)))
    assert model.seen == [4]
    assert prepare(configuration).season_errors == pytest.approx([(100 + 4) / 5])


def test_a_model_that_is_seasonal_naive_has_ratio_one() -> None:
    # at season 1 the last value is Seasonal Naive's median
    frame = evaluate(LastValue(), Suite("s", (random_configuration([5, 9, 30]),)))
    assert frame["MASE_ratio"].tolist() == pytest.approx([1.0])
    assert frame["CRPS_ratio"][0] != pytest.approx(1.0)
    assert frame["windows"].tolist() == [3]
    assert (frame["seconds_total"] >= frame["seconds_forward"]).all()


def test_what_cannot_be_forecast_is_listed_and_left_out_of_both_sides() -> None:
    good = np.array([1, 2, 4], np.float32)
    configuration = configuration_of(
        [
            good,
            np.full(5, np.nan, np.float32),
            np.zeros(0, np.float32),
            np.array([3, 13], np.float32),
            np.array([1, np.nan], np.float32),
        ]
    )
    suite = Suite("s", (configuration,), skipped=(("y/D/short", "gone"),))
    model = LastValue(refuses=13)
    frame = evaluate(model, suite)
    assert frame["windows"].tolist() == [2]
    assert list(frame.skipped) == [
        ("y/D/short", "gone"),
        ("x/D/short, window 1", "no observed value in the last 5 steps of its history"),
        ("x/D/short, window 2", "no history before the window"),
        ("x/D/short, window 3", "cannot forecast a thirteen"),
    ]
    kept = configuration.select(np.array([True, False, False, False, True]))
    assert frame["seasonal_naive_MASE"][0] == MASE.of(prepare(kept).baseline)


def test_a_suite_that_cannot_be_forecast_at_all_is_an_error() -> None:
    configuration = configuration_of([np.full(5, np.nan, np.float32)])
    with pytest.raises(TspruneError, match="no observed value"):
        evaluate(LastValue(), Suite("s", (configuration,)))


def test_a_constant_series_has_no_ratio_and_says_so() -> None:
    constant = configuration_of([np.ones(5, np.float32)], name="constant/D/short")
    frame = evaluate(LastValue(), Suite("s", (constant, random_configuration([9, 9]))))
    assert [entry[0] for entry in frame.skipped] == ["constant/D/short"]
    assert "no MASE ratio" in frame.skipped[0][1]
    assert geometric_mean_ratios(frame)["MASE"] == pytest.approx(1.0)


def test_geometric_mean_by_hand() -> None:
    frame = evaluate(
        "seasonal-naive", Suite("s", tuple(random_configuration([5, 6], name=f"{i}") for i in "ab"))
    )
    frame.frame["MASE_ratio"] = [0.5, 2.0]
    frame.frame["CRPS_ratio"] = [0.25, 1.0]
    assert geometric_mean_ratios(frame) == pytest.approx({"MASE": 1.0, "CRPS": 0.5})


def test_the_mean_forecast_is_that_of_the_samples() -> None:
    configuration = random_configuration([5, 6])
    forecast = seasonal_naive(configuration)
    paths = np.stack([forecast.median, forecast.median + 3], axis=1)
    sampled = Forecast(forecast.quantiles, samples=paths)
    shifted = configuration.targets - (forecast.median + 1.5)
    np.testing.assert_allclose(
        truth(configuration).statistics(sampled).mean_squared_error_sum, (shifted**2).sum(1), rtol=1e-5
    )
    median = truth(configuration).statistics(forecast)
    np.testing.assert_array_equal(median.mean_squared_error_sum, median.squared_error_sum)


def test_progress_reaches_the_end() -> None:
    calls: list[tuple[str, int, int]] = []
    suite = Suite(
        "s", (random_configuration([5] * 5, "a"), configuration_of([np.zeros(0, np.float32)] * 2, name="b"))
    )
    evaluate(LastValue(), suite, batch_size=2, progress=lambda *call: calls.append(call))
    assert calls[0] == ("evaluate", 2, 7)
    assert calls[-1] == ("evaluate", 7, 7)
    assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)


def test_mistakes_are_named() -> None:
    suite = Suite("s", (random_configuration([5]),))
    with pytest.raises(TspruneError, match='"seasonal-naive"'):
        evaluate("naive", suite)  # type: ignore[arg-type]
    with pytest.raises(TspruneError, match="no windows"):
        evaluate(LastValue(), Suite("empty", ()))
    with pytest.raises(TspruneError, match="batch_size"):
        evaluate(LastValue(), suite, batch_size=0)
