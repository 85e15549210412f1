"""From a model and a suite to one row of scores per configuration.

1. Seasonal errors and Seasonal Naive's statistics are computed once a configuration (`preparation`).
2. `forecast_statistics` runs the model over batches of windows (`tsprune.evaluation.batching`) and
   keeps sums per window, not forecasts.
3. `evaluate` turns them into metrics and ratios to Seasonal Naive over the same windows.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np
from numpy.typing import NDArray

from tsprune.arguments import checked
from tsprune.data.suite import Configuration, Suite
from tsprune.errors import TspruneError
from tsprune.evaluation.batching import Batch, Rows, shared_batches, unforecastable
from tsprune.evaluation.leaderboard import LEADERBOARD_METRICS, leaderboard_metrics
from tsprune.evaluation.metrics import (
    METRICS,
    Metric,
    WindowStatistics,
    aggregate,
    per_metric,
)
from tsprune.evaluation.preparation import prepare, truth_of
from tsprune.progress import Progress, showing
from tsprune.run_options import Options, RunOptions
from tsprune.schema import Column, Schema

if TYPE_CHECKING:
    import pandas as pd

    from tsprune.models.forecaster import Forecast, Predictor

SEASONAL_NAIVE: Literal["seasonal-naive"] = "seasonal-naive"
EVALUATION = Schema(
    "evaluation",
    Column("configuration", "<dataset>/<frequency>/<term>", kind="text"),
    Column("domain", "of the dataset", kind="text"),
    Column("num_variates", "of the dataset", kind="count"),
    Column("windows", "that were forecast", kind="count"),
    per_metric("{name}", "{name} over these windows"),
    per_metric("seasonal_naive_{name}", "{name} of Seasonal Naive over the same windows"),
    per_metric("{name}_ratio", "{name} divided by Seasonal Naive's; NaN where that is zero or undefined"),
    *(Column(name, "a metric of GIFT-Eval's leaderboard, by its name there") for name in LEADERBOARD_METRICS),
    Column("seconds_forward", "wall-clock time inside the model; the windows' part of shared batches", "s"),
    Column("seconds_prepare", "of seasonal errors and baseline; about 0 if they were known already", "s"),
    Column("seconds_total", "of everything", "s"),
)

# --- 2. forecasts to statistics ------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ModelStatistics:
    """What a model scored on a configuration.

    rows : int64 [M], ascending, the windows it forecast
    statistics : of those windows, in that order
    skipped : (row, reason) of the others
    seconds_forward : wall-clock seconds inside `Forecaster.forecast`, of batches that are shared its part
    seconds_scoring : likewise, what it took to score them
    """

    rows: Rows
    statistics: WindowStatistics | None
    skipped: tuple[tuple[int, str], ...]
    seconds_forward: float
    seconds_scoring: float


def finite_windows(forecast: Forecast, batch: Batch) -> NDArray[np.bool_]:
    """Which windows of a batch have a finite forecast over their own horizon, [B]."""
    return forecast.finite(batch.horizons)


@checked
def forecast_statistics(
    model: Predictor,
    configurations: Sequence[Configuration],
    *,
    batch_size: int,
    on_batch: Callable[[Batch], None] | None = None,
) -> list[ModelStatistics]:
    """Runs `model` over configurations, keeping sums per window only; one result a configuration.

    on_batch : called with each batch when it is done

    A window the model refuses (TspruneError) or answers with NaN or infinity is listed in `skipped`.
    """
    from tsprune.models.forecaster import with_gaps  # brings in torch, which the pieces do not need

    gathered = [_Gathered(unforecastable(c, model.context_length)) for c in configurations]
    pending = shared_batches(
        configurations,
        context_length=model.context_length,
        batch_size=batch_size,
        prefix_steps=getattr(model, "prefix_steps", 1),  # baselines need not say
    )
    while pending:
        batch = pending.pop(0)
        contexts = batch.contexts
        start = time.perf_counter()
        try:
            forecast = with_gaps(model, contexts, batch.horizon)
        except TspruneError as error:
            if len(batch) == 1:
                gathered[int(batch.configurations[0])].skipped.append((int(batch.rows[0]), str(error)))
            else:  # find out which of them it was
                pending[:0] = [batch.select([place]) for place in range(len(batch))]
            continue
        finally:
            forecasting = time.perf_counter() - start
            for number, places in batch.members.items():
                gathered[number].seconds_forward += forecasting * len(places) / len(batch)
        start = time.perf_counter()
        finite = finite_windows(forecast, batch)
        statistics = truth_of(configurations, batch).statistics(forecast)
        scoring = time.perf_counter() - start
        for number, places in batch.members.items():
            gathered[number].add(batch.rows[places], statistics.select(places), finite[places])
            gathered[number].seconds_scoring += scoring * len(places) / len(batch)
        if on_batch is not None:
            on_batch(batch)
    return [one.result() for one in gathered]


@dataclasses.dataclass
class _Gathered:
    """What is known of one configuration so far."""

    skipped: list[tuple[int, str]]
    rows: list[Rows] = dataclasses.field(default_factory=list)
    parts: list[WindowStatistics] = dataclasses.field(default_factory=list)
    seconds_forward: float = 0.0
    seconds_scoring: float = 0.0

    def add(self, rows: Rows, statistics: WindowStatistics, finite: NDArray[np.bool_]) -> None:
        self.skipped += [(int(row), "the forecast is not finite") for row in rows[~finite]]
        self.rows.append(rows[finite])
        self.parts.append(statistics.select(finite))

    def result(self) -> ModelStatistics:
        rows = np.concatenate(self.rows) if self.rows else np.zeros(0, dtype=np.int64)
        order = np.argsort(rows)
        statistics = WindowStatistics.concatenate(self.parts).select(order) if len(rows) else None
        skipped = tuple(sorted(self.skipped))
        return ModelStatistics(rows[order], statistics, skipped, self.seconds_forward, self.seconds_scoring)


# --- 3. scores -----------------------------------------------------------------------------------


@checked
def evaluate(
    model: Predictor | Literal["seasonal-naive"],
    suite: Suite,
    **options: Unpack[Options],
) -> pd.DataFrame:
    """Scores a model on every configuration of a suite.

    Windows of like horizons are forecast together, whichever configuration they are of; so scores of a
    part of a suite may differ in their last bits (see `tsprune.evaluation.batching`).

    model : a Forecaster, anything that forecasts like one (a Predictor), or "seasonal-naive"
    options : batch_size and progress (stage "evaluate", windows done, windows of the suite) of `RunOptions`

    Returns one row per configuration with the columns of `EVALUATION`.
    `frame.attrs["skipped"]` lists (configuration or window, reason) of all that was left out.

    Raises TspruneError for an unknown model name or a suite without windows.
    """
    if isinstance(model, str) and model != SEASONAL_NAIVE:
        raise TspruneError(
            f'evaluate takes a loaded model or "{SEASONAL_NAIVE}", not "{model}"; see tsprune.load'
        )
    suite.require_windows()
    run_options = RunOptions(**options)
    seconds = [_preparing(configuration) for configuration in suite.configurations]
    skipped: list[tuple[str, str]] = list(suite.skipped)
    records: list[dict[str, Any]] = []
    with showing(run_options.progress) as progress:
        results = _results(model, suite.configurations, run_options.batch_size, progress)
    for configuration, result, preparing in zip(suite.configurations, results, seconds, strict=True):
        record, left_out = _scored(configuration, result, preparing)
        skipped += left_out
        if record is not None:
            records.append(record)
    if not records:
        raise TspruneError(f"no window of {suite.name} could be forecast: {skipped[-1][0]}: {skipped[-1][1]}")
    frame = EVALUATION.frame(records)
    frame.attrs["suite"] = suite.name
    frame.attrs["model"] = model if isinstance(model, str) else model.name
    frame.attrs["skipped"] = skipped
    return frame


def _preparing(configuration: Configuration) -> float:
    """Seconds that it takes to have a configuration prepared."""
    start = time.perf_counter()
    prepare(configuration)
    return time.perf_counter() - start


def _results(
    model: Predictor | Literal["seasonal-naive"],
    configurations: Sequence[Configuration],
    batch_size: int,
    progress: Progress,
) -> list[ModelStatistics]:
    total, done = sum(len(c) for c in configurations), 0

    def report(batch: Batch) -> None:
        nonlocal done
        done += len(batch)
        progress("evaluate", done, total)

    if isinstance(model, str):
        results = [
            ModelStatistics(np.arange(len(c)), prepare(c).baseline, (), 0.0, 0.0) for c in configurations
        ]
    else:
        results = forecast_statistics(model, configurations, batch_size=batch_size, on_batch=report)
    if done < total:  # windows that cannot be forecast are done, too
        progress("evaluate", total, total)
    return results


def _scored(
    configuration: Configuration, result: ModelStatistics, seconds_prepare: float
) -> tuple[dict[str, Any] | None, list[tuple[str, str]]]:
    """The row of one configuration (None if no window was forecast), and what was left out of it."""
    start = time.perf_counter()
    name = configuration.name
    skipped = [(f"{name}, window {row}", reason) for row, reason in result.skipped]
    if result.statistics is None:
        return None, [(name, "no window could be forecast"), *skipped]
    record = _record(configuration, result.statistics, prepare(configuration).baseline.select(result.rows))
    skipped += [
        (name, f"no {metric.name} ratio: {_why_no_ratio(record, metric)}")
        for metric in METRICS.values()
        if not np.isfinite(record[f"{metric.name}_ratio"])
    ]
    scoring = result.seconds_scoring + time.perf_counter() - start
    record["seconds_forward"] = result.seconds_forward
    record["seconds_prepare"] = seconds_prepare
    record["seconds_total"] = seconds_prepare + result.seconds_forward + scoring
    return record, skipped


def _record(
    configuration: Configuration, statistics: WindowStatistics, baseline: WindowStatistics
) -> dict[str, Any]:
    found, naive = ({m.name: m.of(s) for m in METRICS.values()} for s in (statistics, baseline))
    record: dict[str, Any] = {
        "configuration": configuration.name,
        "domain": configuration.domain,
        "num_variates": configuration.num_variates,
        "windows": len(statistics),
    }
    record |= found
    record |= {f"seasonal_naive_{name}": value for name, value in naive.items()}
    record |= {
        f"{name}_ratio": value / naive[name] if naive[name] else float("nan") for name, value in found.items()
    }
    return record | leaderboard_metrics(statistics)


def _why_no_ratio(record: Mapping[str, Any], metric: Metric) -> str:
    """Why a row of `evaluate` has no ratio of a metric to Seasonal Naive."""
    naive = record[f"seasonal_naive_{metric.name}"]
    if np.isnan(record.get("MAE[0.5]", 0.0)):
        return "no target is known"
    if naive == 0:
        return "Seasonal Naive's is 0.0"
    if np.isnan(naive):
        return metric.undefined
    return f"the model's is {record[metric.name]}, Seasonal Naive's {naive}"


def geometric_mean_ratios(frame: pd.DataFrame) -> dict[str, float]:
    """Geometric means over configurations of the ratio to Seasonal Naive, by metric ("MASE", "CRPS", ...).

    A configuration whose ratio is undefined (`evaluate` lists it as skipped) does not count.

    Raises TspruneError if no configuration has a ratio.
    """
    means = {}
    for name, metric in METRICS.items():
        ratios = frame[f"{name}_ratio"].to_numpy(dtype=np.float64)
        known = ratios[np.isfinite(ratios)]
        if len(known) == 0:
            why = _why_no_ratio(frame.iloc[-1].to_dict(), metric) if len(frame) else "there is none"
            constant = why.endswith(("is 0.0", "constant", "zero"))
            advice = "; evaluate on series that are not constant" if constant else ""
            raise TspruneError(f"no configuration has a {name} ratio ({why}){advice}")
        means[name] = float(aggregate(known))
    return means
