"""GIFT-Eval's leaderboard: its metrics, and its results file, ready to submit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from tsprune.atomic import write_whole
from tsprune.evaluation.metrics import CRPS, MASE, WindowStatistics, ratio_of_sums

if TYPE_CHECKING:
    import pandas as pd


def _ratio(numerator: str, denominator: str) -> Callable[[WindowStatistics], float]:
    both = attrgetter(numerator, denominator)
    return lambda statistics: ratio_of_sums(*both(statistics))


_squared_error_of_mean = _ratio("mean_squared_error_sum", "target_count")
_absolute_target = _ratio("absolute_target_sum", "target_count")


def _root_error(statistics: WindowStatistics) -> float:
    return math.sqrt(_squared_error_of_mean(statistics))


def _normalised_root_error(statistics: WindowStatistics) -> float:
    scale = _absolute_target(statistics)
    return _root_error(statistics) / scale if scale else math.nan


LEADERBOARD_METRICS: Mapping[str, Callable[[WindowStatistics], float]] = {
    "MSE[mean]": _squared_error_of_mean,
    "MSE[0.5]": _ratio("squared_error_sum", "target_count"),
    "MAE[0.5]": _ratio("absolute_error_sum", "target_count"),
    "MASE[0.5]": MASE.of,
    "MAPE[0.5]": _ratio("percentage_error_sum", "percentage_error_count"),
    "sMAPE[0.5]": _ratio("symmetric_error_sum", "symmetric_error_count"),
    "MSIS": _ratio("interval_score_sum", "interval_score_count"),
    "RMSE[mean]": _root_error,
    "NRMSE[mean]": _normalised_root_error,
    "ND[0.5]": _ratio("absolute_error_sum", "absolute_target_sum"),
    "mean_weighted_sum_quantile_loss": CRPS.of,
}
_COLUMNS = {"configuration": "dataset", "model": "model"}
_COLUMNS |= {metric: f"eval_metrics/{metric}" for metric in LEADERBOARD_METRICS}
_COLUMNS |= {"domain": "domain", "num_variates": "num_variates"}


def leaderboard_metrics(statistics: WindowStatistics) -> dict[str, float]:
    """The eleven metrics of GIFT-Eval's leaderboard by their names there."""
    return {name: metric(statistics) for name, metric in LEADERBOARD_METRICS.items()}


def write_all_results(frame: pd.DataFrame, path: str | Path, model_name: str) -> None:
    """Writes a table of `evaluate` as `all_results.csv` with the leaderboard's 15 columns.

    path : the file, or a directory, which is made, for a file called all_results.csv
    model_name : the value of the column `model`

    An existing file is replaced as a whole: the new one is written aside first.
    """
    target = Path(path)
    if target.suffix != ".csv":
        target = target / "all_results.csv"
    table = frame.assign(model=model_name)[list(_COLUMNS)].rename(columns=_COLUMNS)
    write_whole(target, table.to_csv(index=False).encode())
