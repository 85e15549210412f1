"""Time steps: found in times of which some are missing, and the times that pandas makes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsprune.data.own.steps import IrregularError, TimeStep, infer, of_frequency, require_dense

# pandas' frequency, ours
FREQUENCIES = {
    "s": "s", "10s": "10s", "min": "min", "5min": "5min", "15min": "15min", "h": "h", "6h": "6h", "D": "D",
    "B": "B", "W-SUN": "W", "W-WED": "W", "2W-MON": "2W", "MS": "ME", "ME": "ME", "QS": "QE", "QE-NOV": "QE",
    "YS": "YE", "YE-JUN": "YE", "BME": "ME",
}  # fmt: skip


def micro(times: pd.DatetimeIndex) -> np.ndarray:
    return times.as_unit("us").asi8


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    st.sampled_from(sorted(FREQUENCIES)),
    st.integers(12, 60),
    st.dates(pd.Timestamp("1960-01-01").date(), pd.Timestamp("2060-01-01").date()),
    st.integers(0, 2**32 - 1),
)
def test_missing_times_do_not_hide_a_step(freq: str, count: int, start: object, seed: int) -> None:
    times = micro(pd.date_range(start, periods=count, freq=freq))
    keep = np.random.default_rng(seed).random(count) < 0.85
    keep[:4] = keep[-2:] = True
    step = infer(times[keep])
    assert step.freq == FREQUENCIES[freq]
    np.testing.assert_array_equal(step.positions(times[keep]), np.flatnonzero(keep))
    if freq != "BME":  # the last working days are not at one distance of the months' ends
        np.testing.assert_array_equal(step.at(int(times[0]), np.arange(count)), times)


@pytest.mark.parametrize("freq", sorted(FREQUENCIES))
def test_a_named_step_is_the_inferred_one(freq: str) -> None:
    times = micro(pd.date_range("2023-03-31", periods=40, freq=freq))
    assert of_frequency(freq.replace("BME", "ME"), times) == infer(times)


def test_the_31st_is_the_end_of_shorter_months() -> None:
    times = micro(pd.DatetimeIndex(["2023-01-30", "2023-02-28", "2023-03-30", "2023-04-30"]))
    step = infer(times)
    assert step == TimeStep("month", 1)
    np.testing.assert_array_equal(step.at(int(times[0]), np.arange(4)), times)


@pytest.mark.parametrize(
    ("times", "row"),
    [
        (["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-03 12:00"], 3),
        (["2024-01-01", "2024-01-02 01:00", "2024-01-03", "2024-01-04", "2024-01-05"], 1),
    ],
)
def test_a_time_between_steps_is_named(times: list[str], row: int) -> None:
    with pytest.raises(IrregularError) as caught:
        infer(micro(pd.DatetimeIndex(times)))
    assert caught.value.row == row


def test_a_step_that_is_given_must_fit() -> None:
    times = micro(pd.date_range("2024-01-05", periods=4, freq="D"))
    with pytest.raises(IrregularError, match="on a weekend") as caught:
        of_frequency("B").positions(times)
    assert caught.value.row == 1
    with pytest.raises(IrregularError, match="between steps of W"):
        of_frequency("W").positions(times)
    with pytest.raises(IrregularError) as caught:  # two times in one step
        of_frequency("ME").positions(times)
    assert caught.value.row == 1
    np.testing.assert_array_equal(of_frequency("h").positions(times), [0, 24, 48, 72])


def test_a_table_that_is_mostly_gaps_is_refused() -> None:
    require_dense(np.array([0, 1, 900]))
    with pytest.raises(IrregularError) as caught:
        require_dense(np.array([0, 5000, 5001]))
    assert caught.value.row == 1
