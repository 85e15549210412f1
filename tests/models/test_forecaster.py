"""What every forecaster refuses, with one line that names the series."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from chronos.utils import left_pad_and_stack_1D
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from tests.tiny import TINY
from tsprune.errors import TspruneError
from tsprune.models import Forecaster, load
from tsprune.models.contexts import checked_contexts, padded
from tsprune.models.forecaster import Forecast


@pytest.fixture(scope="module", params=["tiny-chronos-bolt", "tiny-timesfm"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Forecaster:
    directory: Path = tmp_path_factory.mktemp("model")
    TINY[request.param](directory)
    return load(str(directory), device="cpu")


GOOD = [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("contexts", "horizon", "says"),
    [
        ([], 3, "the list of contexts is empty"),
        ([GOOD], 0, "horizon must be at least 1, not 0"),
        ([GOOD], -4, "horizon must be at least 1, not -4"),
        ([GOOD, []], 3, "series 1 is empty"),
        ([GOOD, GOOD, [np.nan] * 9], 3, "series 2 has no observed value"),
        ([[np.nan, np.inf]], 3, "series 0 has no observed value"),
        ([GOOD, [[GOOD, GOOD]]], 3, "series 1 has 3 dimensions"),
        ([3.0], 3, "series 0 has 0 dimensions"),
        ([GOOD, ["high", "low"]], 3, "series 1 is not a sequence of numbers"),
        ([[GOOD, [1.0]]], 3, "series 0 holds sequences of unequal lengths"),
        ([GOOD, [GOOD, [np.nan] * 3]], 3, "series 1 has no observed value in variate 1"),
        ([GOOD, pd.DataFrame({"a": GOOD, "b": GOOD})], 3, "series 1 is a table; pass an array"),
        ([None], 3, "series 0"),
    ],
)
def test_what_cannot_be_forecast(
    model: Forecaster, contexts: list[ArrayLike], horizon: int, says: str
) -> None:
    with pytest.raises(TspruneError, match=says) as caught:
        model.forecast(contexts, horizon)
    assert "\n" not in str(caught.value)


def test_variates_are_rows_of_an_array_or_a_list(model: Forecaster) -> None:
    rows = np.arange(12.0).reshape(2, 6)
    forecasts = [model.forecast(x, 3).quantiles for x in ([rows], [rows.tolist()], rows[None])]
    assert forecasts[0].shape == (2, 9, 3)
    for other in forecasts[1:]:
        np.testing.assert_array_equal(other, forecasts[0])


def test_a_matrix_is_one_series_a_row(model: Forecaster) -> None:
    rows = np.arange(12.0).reshape(2, 6)
    together = model.forecast(rows, 3).quantiles
    np.testing.assert_array_equal(together, model.forecast(list(rows), 3).quantiles)


def test_teacher_forced_checks_too(model: Forecaster) -> None:
    with pytest.raises(TspruneError, match="series 0 is empty"):
        model.teacher_forced([[]])


def test_a_constant_and_a_single_value_have_forecasts(model: Forecaster) -> None:
    quantiles = model.forecast([[5.0] * 30, [7.0], [np.nan, 7.0, np.nan]], 4).quantiles
    assert np.isfinite(quantiles).all()


def test_checked_contexts_are_float32_and_as_given() -> None:
    arrays = checked_contexts([[1, 2], np.array([0.5, np.nan], dtype=np.float64)], 1)
    assert [a.dtype for a in arrays] == [np.float32, np.float32]
    np.testing.assert_array_equal(arrays[0], [1, 2])
    np.testing.assert_array_equal(arrays[1], [0.5, np.nan])


def test_the_median_is_where_the_levels_say() -> None:
    quantiles = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    np.testing.assert_array_equal(Forecast(quantiles, (0.2, 0.5, 0.7)).median, [[2, 3], [8, 9]])


@given(st.lists(st.lists(st.floats(-9, 9, width=32), min_size=1, max_size=9), min_size=1, max_size=5))
def test_padding_is_upstreams(lists: list[list[float]]) -> None:
    series = [np.array(values, dtype=np.float32) for values in lists]
    expected = left_pad_and_stack_1D([torch.from_numpy(values) for values in series])
    np.testing.assert_array_equal(padded(series), expected.numpy())


def test_short_horizons_are_the_beginning_of_the_longest(model: Forecaster) -> None:
    """What lets windows of unlike horizons be forecast together."""
    contexts = [np.sin(np.arange(n)) + n for n in (50, 33, 9)]
    longest = model.forecast(contexts, model.prefix_steps)
    assert model.prefix_steps > 1
    for horizon in (1, model.prefix_steps // 2, model.prefix_steps - 1):
        quantiles = model.forecast(contexts, horizon).quantiles
        np.testing.assert_array_equal(quantiles, longest.quantiles[:, :, :horizon])


def test_a_forecast_is_a_table_and_a_picture() -> None:
    quantiles = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    forecast = Forecast(quantiles, (0.1, 0.5))
    frame = forecast.to_frame()
    assert frame.columns.tolist() == ["series", "step", "0.1", "0.5"]
    assert frame.loc[4].tolist() == [1, 2, 7, 10]
    named = forecast.to_frame(["a", "b"], np.array(["2020-01-01", "2020-01-02", "2020-01-03"], "M8[D]"))
    assert named.columns.tolist() == ["item_id", "timestamp", "0.1", "0.5"]
    assert named.loc[4, "item_id"] == "b"
    assert str(named.loc[4, "timestamp"]) == "2020-01-02 00:00:00"
    with pytest.raises(TspruneError, match="2 ids"):
        forecast.to_frame(["a"])
    assert repr(forecast) == "<Forecast of 2 series over 3 steps, 2 levels from 0.1 to 0.5>"
    assert "<table" in forecast._repr_html_()
    history, high, low, median = forecast.plot(1, context=[5.0, 6.0]).data
    assert list(history.x) == [-1, 0]
    assert list(median.x) == [1, 2, 3]
    assert list(low.y) == [6, 7, 8]
    assert list(high.y) == list(median.y) == [9, 10, 11]
    with pytest.raises(TspruneError, match="series"):
        forecast.plot(2)
