"""Evaluation: from windows to forecasts, metrics and their means."""

from tsprune.evaluation.baseline import Truth, prepare, seasonal_naive, truth_of
from tsprune.evaluation.batching import Batch, shared_batches, unforecastable
from tsprune.evaluation.evaluate import (
    EVALUATION,
    evaluate,
    forecast_statistics,
    geometric_mean_ratios,
)
from tsprune.evaluation.leaderboard import leaderboard_metrics, write_all_results
from tsprune.evaluation.metrics import (
    CRPS,
    MASE,
    METRICS,
    Metric,
    WindowStatistics,
    aggregate,
    centred_ranks,
    per_metric,
    rank_distance,
    seasonal_errors,
    spearman_distance,
    window_statistics,
)

__all__ = [
    "CRPS", "EVALUATION", "MASE", "METRICS", "Batch", "Metric", "Truth", "WindowStatistics", "aggregate",
    "centred_ranks", "evaluate", "forecast_statistics", "geometric_mean_ratios", "leaderboard_metrics",
    "per_metric", "prepare", "rank_distance", "seasonal_errors", "seasonal_naive", "shared_batches",
    "spearman_distance", "truth_of", "unforecastable", "window_statistics", "write_all_results",
]  # fmt: skip
