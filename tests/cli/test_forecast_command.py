"""`tsprune forecast` writes what `predict_df` returns for the same table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tsprune
from tests.shell import Runner, refused
from tests.tiny import write_chronos2


def table() -> pd.DataFrame:
    parts = []
    for name, count in (("b", 40), ("a", 70)):
        days = pd.date_range("2023-01-31", periods=count, freq="ME")
        parts.append(pd.DataFrame({"item_id": name, "timestamp": days, "target": np.sin(np.arange(count))}))
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_the_file_holds_the_forecasts(run: Runner, model: Path, tmp_path: Path, suffix: str) -> None:
    source, target = tmp_path / "own.csv", tmp_path / f"out{suffix}"
    table().to_csv(source, index=False)
    done = run("forecast", model, "--data", source, "--horizon", "5", "--out", target, "--json")
    assert (done.code, done.result) == (0, {"series": 2, "rows": 10, "out": str(target)})
    found = pd.read_csv(target, parse_dates=["timestamp"]) if suffix == ".csv" else pd.read_parquet(target)
    expected = tsprune.load(str(model), device="cpu").predict_df(table(), prediction_length=5)
    pd.testing.assert_frame_equal(found, expected, check_dtype=suffix == ".parquet", rtol=1e-6)


def test_series_without_times_or_values(run: Runner, model: Path, tmp_path: Path) -> None:
    """Several batches and frequencies keep the order of the file; what is left out is listed."""
    days = pd.date_range("2024-01-01", periods=30, freq="D")
    wide = pd.DataFrame({"ds": days, "x": range(30), "empty": np.nan, "w": np.arange(30.0) % 7})
    wide.loc[28:, "w"] = np.nan
    wide.to_csv(tmp_path / "wide.csv", index=False)
    options = ("--data", tmp_path / "wide.csv", "--horizon", "2", "--batch-size", "1", "--json")
    done = run("forecast", model, *options, "--target", "x", "--target", "w")
    rows = done.result["forecasts"]
    assert [(row["item_id"], row["target_name"], row["timestamp"][:10]) for row in rows] == [
        ("wide", "x", "2024-01-31"),  # variates of one series, which has the file's name
        ("wide", "x", "2024-02-01"),
        ("wide", "w", "2024-01-31"),
        ("wide", "w", "2024-02-01"),
    ]
    done = run("forecast", model, *options)
    rows = done.result["forecasts"]
    assert [(row["item_id"], row["target_name"], row["timestamp"][:10]) for row in rows] == [
        ("x", "x", "2024-01-31"),  # a column per series
        ("x", "x", "2024-02-01"),
        ("w", "w", "2024-01-29"),  # after its last value
        ("w", "w", "2024-01-30"),
    ]


def test_the_target_is_called_as_in_the_table(run: Runner, model: Path, tmp_path: Path) -> None:
    named = table().rename(columns={"item_id": "shop", "timestamp": "day", "target": "sold"})
    named.to_csv(tmp_path / "own.csv", index=False)
    done = run("forecast", model, "--data", tmp_path / "own.csv", "--horizon", "2", "--json")
    assert {row["target_name"] for row in done.result["forecasts"]} == {"sold"}
    assert [row["item_id"] for row in done.result["forecasts"]] == ["b", "b", "a", "a"]
    nested = [{"item_id": "n", "start": "2024-01-01", "freq": "D", "target": [[1, 2, 3, 4], [2, 3, 4, 6]]}]
    (tmp_path / "own.json").write_text(json.dumps(nested))
    done = run("forecast", model, "--data", tmp_path / "own.json", "--horizon", "1", "--json")
    assert [(row["item_id"], row["target_name"]) for row in done.result["forecasts"]] == [
        ("n", "target0"),
        ("n", "target1"),
    ]


def test_mistakes(run: Runner, model: Path, tmp_path: Path) -> None:
    table().to_csv(tmp_path / "own.csv", index=False)
    data = ("--data", tmp_path / "own.csv", "--horizon", "5")
    refused(run("forecast", model, *data, "--out", tmp_path / "out.xlsx"), ".parquet or .csv")
    refused(run("forecast", model), "no table of your own")
    refused(run("forecast", model, "--horizon", "5"), "--data FILE")
    refused(run("forecast", model, "--data", tmp_path / "none.csv", "--horizon", "5"), "none.csv")
    refused(run("forecast", model, *data, "--target", "sales"), "sales")
    refused(run("forecast", tmp_path / "none", *data), "no such folder")
    assert list(tmp_path.iterdir()) == [tmp_path / "own.csv"]


def test_past_covariates_are_read_where_the_family_reads_them(
    run: Runner, model: Path, tmp_path: Path
) -> None:
    write_chronos2(chronos2 := tmp_path / "chronos2")
    frame = table().assign(price=lambda x: np.cos(np.arange(len(x))))
    frame.to_csv(tmp_path / "own.csv", index=False)
    data = ("--data", tmp_path / "own.csv", "--target", "target", "--horizon", "3", "--json")
    plain, beside = (
        {path: run("forecast", path, *data, *more) for path in (model, chronos2)}
        for more in ((), ("--past-covariate", "price"))
    )
    assert beside[model].result == plain[model].result
    (note,) = json.loads(beside[model].out)["notes"]
    assert "reads no past covariates" in note
    assert beside[chronos2].result["forecasts"] != plain[chronos2].result["forecasts"]
    assert json.loads(beside[chronos2].out)["notes"] == []
    scored = run("evaluate", model, *data, "--past-covariate", "price", "--windows", "1")
    assert "reads no past covariates" in scored.out
