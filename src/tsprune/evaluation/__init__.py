"""Windows to forecasts to metrics to aggregates."""

from tsprune.evaluation.batching import Batch, batches, shared_batches, unforecastable
from tsprune.evaluation.evaluate import (
    EVALUATION,
    ModelStatistics,
    evaluate,
    finite_windows,
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
from tsprune.evaluation.preparation import Preparation, Truth, prepare, truth_of
from tsprune.evaluation.seasonal_naive import seasonal_naive

__all__ = [
    "CRPS",
    "EVALUATION",
    "MASE",
    "METRICS",
    "Batch",
    "Metric",
    "ModelStatistics",
    "Preparation",
    "Truth",
    "WindowStatistics",
    "aggregate",
    "batches",
    "centred_ranks",
    "evaluate",
    "finite_windows",
    "forecast_statistics",
    "geometric_mean_ratios",
    "leaderboard_metrics",
    "per_metric",
    "prepare",
    "rank_distance",
    "seasonal_errors",
    "seasonal_naive",
    "shared_batches",
    "spearman_distance",
    "truth_of",
    "unforecastable",
    "window_statistics",
    "write_all_results",
]
