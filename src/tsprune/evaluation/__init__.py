"""Windows to forecasts to metrics to aggregates."""

from tsprune.evaluation.batching import Batch, batches, shared_batches, unforecastable
from tsprune.evaluation.evaluate import (
    ModelStatistics,
    Prepared,
    Truth,
    evaluate,
    finite_windows,
    forecast_statistics,
    geometric_mean_ratios,
    prepare,
    truth_of,
)
from tsprune.evaluation.leaderboard import write_all_results
from tsprune.evaluation.metrics import (
    WindowStatistics,
    crps,
    leaderboard_metrics,
    mase,
    seasonal_errors,
    spearman_distance,
    window_statistics,
)
from tsprune.evaluation.seasonal_naive import seasonal_naive

__all__ = [
    "Batch",
    "ModelStatistics",
    "Prepared",
    "Truth",
    "WindowStatistics",
    "batches",
    "crps",
    "evaluate",
    "finite_windows",
    "forecast_statistics",
    "geometric_mean_ratios",
    "leaderboard_metrics",
    "mase",
    "prepare",
    "seasonal_errors",
    "seasonal_naive",
    "shared_batches",
    "spearman_distance",
    "truth_of",
    "unforecastable",
    "window_statistics",
    "write_all_results",
]
