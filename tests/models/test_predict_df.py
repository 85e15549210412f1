"""`predict_df` against chronos-forecasting's own, and what it refuses."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from chronos import Chronos2Pipeline

import tsprune
from tests.tiny import write_chronos2
from tsprune.models import Forecast, Forecaster
from tsprune.models.predict_df import FrameError


@functools.cache
def timesfm() -> Forecaster:
    return tsprune.load("bundled:timesfm")


@functools.cache
def table() -> pd.DataFrame:
    """Three series of unlike lengths with gaps of values, in mixed order."""
    parts = []
    for name, count in (("b", 90), ("a", 300), ("c", 2)):
        times = pd.date_range("2021-03-01", periods=count, freq="h")
        values = np.sin(np.arange(count) / 4) * 5 + np.arange(count) % 7
        parts.append(pd.DataFrame({"item_id": name, "timestamp": times, "target": values, "other": "x"}))
    frame = pd.concat(parts).sample(frac=1, random_state=0)
    frame.iloc[3, 2] = np.nan
    return frame


@pytest.mark.parametrize(
    "options",
    [{}, {"quantile_levels": [0.9, 0.5], "batch_size": 2}, {"freq": "2h", "prediction_length": 64}],
)
def test_predict_df_is_that_of_chronos(options: dict[str, Any]) -> None:
    model = tsprune.load("bundled:chronos-bolt")
    given = {"prediction_length": 5} | options
    expected = tsprune.load_pipeline("bundled:chronos-bolt").predict_df(table(), **given)  # type: ignore[attr-defined]
    pd.testing.assert_frame_equal(model.predict_df(table(), **given), expected, check_exact=True)


def test_several_targets_are_those_of_chronos_2(tmp_path: Path) -> None:
    """Variates are read together, and follow each other series by series."""
    write_chronos2(tmp_path / "model")
    frame = table().query("item_id != 'c'").drop(columns="other")  # which Chronos-2 takes for a covariate
    frame = frame.assign(second=np.cos(np.arange(len(frame))), target=frame["target"].fillna(1.0))
    given = {"prediction_length": 5, "target": ["second", "target"]}
    expected = Chronos2Pipeline.from_pretrained(tmp_path / "model").predict_df(frame, **given)
    model = tsprune.load(tmp_path / "model")
    pd.testing.assert_frame_equal(model.predict_df(frame, **given), expected, check_exact=True)
    alone = model.predict_df(frame.drop(columns="target"), **(given | {"target": "second"}))
    together = expected[expected["target_name"] == "second"]
    assert not np.array_equal(alone["predictions"], together["predictions"])


@pytest.mark.parametrize("targets", ["target", ["second", "target"]])
def test_other_columns_are_past_covariates_of_chronos_2(tmp_path: Path, targets: str | list[str]) -> None:
    """Numbers, truth values and categories, encoded as upstream encodes them."""
    write_chronos2(tmp_path / "model")
    frame = table().query("item_id != 'c'").assign(target=lambda x: x["target"].fillna(1.0))
    steps = np.arange(len(frame))
    frame = frame.assign(
        second=np.cos(steps),
        price=steps % 11,
        shop=np.where(steps % 3, "north", "south"),
        open=steps % 2 == 0,
    )
    frame.loc[frame.index[7], "price"] = np.nan
    given = {"prediction_length": 5, "target": targets}
    expected = Chronos2Pipeline.from_pretrained(tmp_path / "model").predict_df(frame, **given)
    model = tsprune.load(tmp_path / "model")
    pd.testing.assert_frame_equal(model.predict_df(frame, **given), expected, check_exact=True)
    plain = model.predict_df(frame[["item_id", "timestamp", "target", "second"]], **given)
    assert (plain["predictions"] != expected["predictions"]).all()


def test_levels_between_and_beyond_are_those_of_chronos() -> None:
    model, levels = tsprune.load("bundled:chronos-bolt"), [0.02, 0.25, 0.77, 0.95]
    given = {"prediction_length": 5, "quantile_levels": levels}
    expected = tsprune.load_pipeline("bundled:chronos-bolt").predict_df(table(), **given)  # type: ignore[attr-defined]
    pd.testing.assert_frame_equal(model.predict_df(table(), **given), expected, rtol=1e-5)


def test_a_pruned_model_of_another_family_drops_in() -> None:
    """Own names of columns, text for times, time zones; the numbers are those of `forecast`."""
    pruned = tsprune.prune(timesfm(), "stack.1.mlp")
    frame = table().rename(columns={"item_id": "id", "timestamp": "when", "target": "y"})
    frame["when"] = frame["when"].dt.tz_localize("UTC").astype(str)
    found = pruned.predict_df(frame, prediction_length=3, id_column="id", timestamp_column="when", target="y")
    assert found.columns[:4].tolist() == ["id", "when", "target_name", "predictions"]
    history = table().query("item_id == 'a'").sort_values("timestamp")["target"]
    alone = found[found["id"] == "a"]
    np.testing.assert_allclose(alone["predictions"], pruned.forecast([history], 3).median[0], rtol=1e-5)
    assert alone["when"].iloc[0] == pd.Timestamp("2021-03-13 12:00", tz="UTC")


def test_paths_give_their_mean_and_interpolated_quantiles() -> None:
    paths = np.array([[[0.0], [10.0], [40.0], [2.0], [8.0]]], dtype=np.float32)
    forecast = Forecast(np.zeros((1, 1, 1), np.float32), (0.5,), paths)
    assert forecast.point.tolist() == [[12.0]]
    np.testing.assert_allclose(forecast.at([0.125, 0.5, 1]), [[[1.0], [8.0], [40.0]]])
    with pytest.raises(tsprune.TspruneError, match="levels"):
        forecast.at([1.5])


def _without_rows(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["item_id"] == "c"]


def _with(column: str, value: object) -> Any:
    return lambda frame: frame.assign(**{column: np.where(np.arange(len(frame)) == 5, value, frame[column])})


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda frame: frame.drop(columns="target"), {}, "does not contain the target column 'target'"),
        (lambda frame: frame, {"target": 5}, "Expected `target` to be str"),
        (lambda frame: frame, {"target": []}, "Expected `target` to be str"),
        (lambda frame: frame, {"target": ["target", "sold"]}, "does not contain the target column 'sold'"),
        (lambda frame: frame, {"id_column": "series"}, "does not contain the column 'series'"),
        (lambda frame: frame[:0], {}, "no rows"),
        (lambda frame: frame.assign(item_id=np.where(frame["item_id"] == "c", None, "a")), {}, "no value"),
        (lambda frame: frame.assign(timestamp="soon"), {}, "cannot read the times"),
        (_without_rows, {}, "Could not infer frequency: no series"),
        (lambda frame: frame.assign(timestamp=pd.Timestamp("2020")), {}, "infer frequency for series"),
        (lambda frame: frame, {"freq": "sometimes!"}, "not a frequency"),
        (lambda frame: frame, {"prediction_length": 0}, "horizon"),
        (lambda frame: frame, {"quantile_levels": [2]}, "levels"),
        (lambda frame: frame.assign(target="high"), {}, "not a sequence of numbers"),
    ],
)
def test_tables_that_are_refused(change: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(tsprune.TspruneError, match=message) as refused:
        timesfm().predict_df(change(table()), **{"prediction_length": 2, **options})
    if "infer" in message or "contain" in message:
        assert isinstance(refused.value, FrameError | ValueError)
