"""The results file has the leaderboard's columns and is replaced as a whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tsprune.data import Configuration, Suite
from tsprune.evaluation import evaluate, write_all_results

HEADER = (
    "dataset,model,eval_metrics/MSE[mean],eval_metrics/MSE[0.5],eval_metrics/MAE[0.5],"
    "eval_metrics/MASE[0.5],eval_metrics/MAPE[0.5],eval_metrics/sMAPE[0.5],eval_metrics/MSIS,"
    "eval_metrics/RMSE[mean],eval_metrics/NRMSE[mean],eval_metrics/ND[0.5],"
    "eval_metrics/mean_weighted_sum_quantile_loss,domain,num_variates"
)


@pytest.fixture
def frame() -> pd.DataFrame:
    configuration = Configuration(
        name="toy/D/short",
        freq="D",
        horizon=2,
        season=1,
        contexts=[np.array([1, 3], np.float32)],
        targets=np.array([[4, 2]], np.float32),
        series=np.zeros(1, np.int64),
        num_variates=7,
        domain="Energy",
    )
    return evaluate("seasonal-naive", Suite("s", (configuration,))).frame


def test_columns_and_values(frame: pd.DataFrame, tmp_path: Path) -> None:
    write_all_results(frame, tmp_path / "results", "my-model")
    path = tmp_path / "results" / "all_results.csv"
    assert path.read_text().splitlines()[0] == HEADER
    row = pd.read_csv(path).iloc[0]
    assert (row["dataset"], row["model"], row["domain"], row["num_variates"]) == (
        "toy/D/short",
        "my-model",
        "Energy",
        7,
    )
    # forecast 3, 3 of 4, 2 with seasonal error 2
    assert row["eval_metrics/MASE[0.5]"] == pytest.approx(0.5)
    assert row["eval_metrics/ND[0.5]"] == pytest.approx(2 / 6)
    assert row["eval_metrics/MSE[mean]"] == pytest.approx(1.0)


def test_an_existing_file_is_replaced_and_nothing_else_is_left(frame: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "all_results.csv"
    path.write_text("old")
    write_all_results(frame, path, "my-model")
    assert path.read_text().startswith(HEADER)
    assert [entry.name for entry in tmp_path.iterdir()] == ["all_results.csv"]


def test_a_failed_write_leaves_the_old_file(frame: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "all_results.csv"
    path.write_text("old")
    with pytest.raises(KeyError):
        write_all_results(frame.drop(columns="domain"), path, "my-model")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["all_results.csv"]
