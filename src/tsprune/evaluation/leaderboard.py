"""GIFT-Eval's results file, ready to submit to the leaderboard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tsprune.atomic import write_whole

if TYPE_CHECKING:
    import pandas as pd

LEADERBOARD_METRICS: tuple[str, ...] = (
    "MSE[mean]",
    "MSE[0.5]",
    "MAE[0.5]",
    "MASE[0.5]",
    "MAPE[0.5]",
    "sMAPE[0.5]",
    "MSIS",
    "RMSE[mean]",
    "NRMSE[mean]",
    "ND[0.5]",
    "mean_weighted_sum_quantile_loss",
)
COLUMNS: tuple[str, ...] = (
    "dataset",
    "model",
    *(f"eval_metrics/{metric}" for metric in LEADERBOARD_METRICS),
    "domain",
    "num_variates",
)


def write_all_results(frame: pd.DataFrame, path: str | Path, model_name: str) -> None:
    """Writes what `evaluate` returned as `all_results.csv` with the leaderboard's 15 columns.

    path : the file, or a directory in which it is called all_results.csv; the directory is made
    model_name : what stands in the column `model`

    An existing file is replaced as a whole: it is written aside first.
    """
    target = Path(path)
    if target.suffix != ".csv":
        target = target / "all_results.csv"
    table = frame.rename(
        columns={
            "configuration": "dataset",
            **{metric: f"eval_metrics/{metric}" for metric in LEADERBOARD_METRICS},
        }
    ).assign(model=model_name)
    write_whole(target, table.to_csv(columns=list(COLUMNS), index=False).encode())
