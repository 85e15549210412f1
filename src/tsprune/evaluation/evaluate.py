"""From a model and a suite to one row of scores per configuration.

1. Seasonal errors and Seasonal Naive's statistics are computed once per configuration (`baseline`).
2. `forecast_statistics` runs the model over batches of windows (`batching`) and keeps sums per window, not
   forecasts.
3. `evaluate` turns them into metrics and ratios to Seasonal Naive over the same windows.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tsprune.arguments import checked
from tsprune.choices import SEASONAL_NAIVE
from tsprune.data.suite import Configuration, Suite
from tsprune.errors import TspruneError
from tsprune.evaluation.baseline import prepare, truth_of
from tsprune.evaluation.batching import Batch, Rows, reading_of, shared_batches, unforecastable
from tsprune.evaluation.leaderboard import LEADERBOARD_METRICS, leaderboard_metrics
from tsprune.evaluation.metrics import METRICS, Metric, WindowStatistics, aggregate, per_metric
from tsprune.progress import Progress, Weighed, showing
from tsprune.run_options import Options, RunOptions
from tsprune.schema import Column, Schema, Table

if TYPE_CHECKING:
    from tsprune.models.forecaster import Forecast, Predictor

EVALUATION = Schema(
    "evaluation",
    Column("configuration", "<dataset>/<frequency>/<term>", dtype="text"),
    Column("domain", "of the dataset", dtype="text"),
    Column("num_variates", "of the dataset", dtype="count"),
    Column("windows", "number of windows that were forecast", dtype="count"),
    per_metric("{name}", "{name} over these windows"),
    per_metric("seasonal_naive_{name}", "{name} of Seasonal Naive over the same windows"),
    per_metric("{name}_ratio", "{name} divided by Seasonal Naive's; NaN where that is zero or undefined"),
    *(Column(name, "a metric of GIFT-Eval's leaderboard, by its name there") for name in LEADERBOARD_METRICS),
    Column("seconds_forward", "wall-clock time in the model; the windows' share of batches", "s"),
    Column("seconds_prepare", "time for seasonal errors and baseline; about 0 after the first call", "s"),
    Column("seconds_total", "wall-clock time of everything", "s"),
)


@dataclasses.dataclass
class ModelStatistics:
    """Scores of a model on a configuration.

    rows : int64 [M], the windows it forecast; ascending once all batches are in
    statistics : of those windows, in that order; None without windows
    skipped : (row, reason) of the others
    seconds_forward : wall-clock seconds inside `Forecaster.forecast`; a share of batches with others
    seconds_scoring : likewise, for scoring
    """

    rows: Rows
    statistics: WindowStatistics | None
    skipped: list[tuple[int, str]]
    seconds_forward: float = 0.0
    seconds_scoring: float = 0.0

    def add(self, rows: Rows, statistics: WindowStatistics, finite: NDArray[np.bool_]) -> None:
        """Adds windows of a batch; those without a finite forecast are skipped."""
        self.skipped += [(int(row), "the forecast is not finite") for row in rows[~finite]]
        if finite.any():
            known = [] if self.statistics is None else [self.statistics]
            self.statistics = WindowStatistics.concatenate([*known, statistics.select(finite)])
            self.rows = np.concatenate([self.rows, rows[finite]])

    def sort(self) -> None:
        """Puts windows into ascending order."""
        order = np.argsort(self.rows)
        self.rows, self.skipped = self.rows[order], sorted(self.skipped)
        if self.statistics is not None:
            self.statistics = self.statistics.select(order)


@checked
def forecast_statistics(
    model: Predictor,
    configurations: Sequence[Configuration],
    *,
    batch_size: int,
    on_batch: Callable[[Batch], None] | None = None,
) -> list[ModelStatistics]:
    """Runs `model` over configurations and keeps sums per window; one result per configuration.

    on_batch : called with each batch when it is done

    Windows that the model refuses (TspruneError) or answers with NaN or infinity are in `skipped`.
    """
    cut = model.context_length
    found = [ModelStatistics(np.zeros(0, np.int64), None, unforecastable(c, cut)) for c in configurations]
    pending = shared_batches(
        configurations,
        context_length=cut,
        batch_size=batch_size,
        # optional for baselines
        prefix_steps=getattr(model, "prefix_steps", 1),
        reading=reading_of(model),
    )
    most = batch_size  # windows that fit into memory
    while pending:
        batch = pending.pop(0)
        contexts = batch.contexts
        start = time.perf_counter()
        try:
            forecast, most = _in_memory(model, contexts, batch.horizon, most)
        except TspruneError as error:
            if len(contexts) == 1:
                found[int(batch.configurations[0])].skipped += [(int(row), str(error)) for row in batch.rows]
            else:  # find out which of them it was
                pending[:0] = [batch.select(places) for places in batch.together]
            continue
        finally:
            forecasting = time.perf_counter() - start
            for number, places in batch.members.items():
                found[number].seconds_forward += forecasting * len(places) / len(batch)
        start = time.perf_counter()
        finite = forecast.finite(batch.horizons)
        statistics = truth_of(configurations, batch).statistics(forecast)
        scoring = time.perf_counter() - start
        for number, places in batch.members.items():
            found[number].add(batch.rows[places], statistics.select(places), finite[places])
            found[number].seconds_scoring += scoring * len(places) / len(batch)
        if on_batch is not None:
            on_batch(batch)
    for one in found:
        one.sort()
    return found


def _in_memory(
    model: Predictor, contexts: Sequence[ArrayLike], horizon: int, most: int
) -> tuple[Forecast, int]:
    """The forecast of a batch in parts of at most `most` windows, which are halved if memory runs out.

    Returns the number of windows that fitted, too.
    """
    from tsprune.memory import in_parts  # both import torch
    from tsprune.models.forecast import concatenated, with_gaps

    parts = list(in_parts(lambda some: with_gaps(model, some, horizon), contexts, most))
    return concatenated([forecast for _, forecast in parts]), most if len(parts) == 1 else parts[0][0].stop


@checked
def evaluate(model: Predictor | Literal["seasonal-naive"], suite: Suite, **options: Unpack[Options]) -> Table:
    """Scores a model on every configuration of a suite.

    A model that reads several variates together forecasts those of a multivariate window so. Each variate
    counts as a window, as in gluonts' metrics over all dimensions. Windows of different configurations share
    batches, so scores of a part of a suite may differ in their last bits (see `tsprune.evaluation.batching`).

    model : a Forecaster, anything that forecasts like one (a Predictor), or "seasonal-naive"
    options : batch_size and progress (stage "evaluate", windows done, windows of the suite) of `RunOptions`

    Returns one row per configuration with the columns of `EVALUATION`.

    Raises TspruneError for an unknown model name or a suite without windows.
    """
    if isinstance(model, str) and model != SEASONAL_NAIVE:
        raise TspruneError(
            f'evaluate takes a loaded model or "{SEASONAL_NAIVE}", not "{model}"; see tsprune.load'
        )
    suite.require_windows()
    run_options = RunOptions(**options)
    seconds = []
    for configuration in suite.configurations:
        start = time.perf_counter()
        prepare(configuration)
        seconds.append(time.perf_counter() - start)
    with showing(run_options.progress) as progress:
        results = _results(model, suite.configurations, run_options.batch_size, progress)
    return evaluation_table(model if isinstance(model, str) else model.name, suite, results, seconds)


def evaluation_table(
    name: str, suite: Suite, results: Sequence[ModelStatistics], seconds: Sequence[float]
) -> Table:
    """The table of `evaluate` from a model's results.

    name : of the model
    results, seconds : of each configuration its scores, and the time that its baseline took

    Raises TspruneError if no window was forecast.
    """
    skipped: list[tuple[str, str]] = list(suite.skipped)
    records: list[dict[str, Any]] = []
    for configuration, result, preparing in zip(suite.configurations, results, seconds, strict=True):
        record, left_out = _scored(configuration, result, preparing)
        skipped += left_out
        records += [record] if record else []
    if not records:
        raise TspruneError(f"no window of {suite.name} could be forecast: {skipped[-1][0]}: {skipped[-1][1]}")
    return Table(EVALUATION.frame(records), f"{name} on {suite.name}", tuple(skipped))


def _results(
    model: Predictor | Literal["seasonal-naive"],
    configurations: Sequence[Configuration],
    batch_size: int,
    progress: Progress,
) -> list[ModelStatistics]:
    total, done = sum(len(c) for c in configurations), 0
    most = 0 if isinstance(model, str) else model.context_length
    steps = sum(min(len(x), most) + c.horizon for c in configurations for x in c.contexts)
    weighed = Weighed(total, steps)

    def report(batch: Batch) -> None:
        nonlocal done
        done += len(batch)
        size = float(sum(map(len, batch.views)) + batch.horizons.sum())
        progress("evaluate", done, weighed.total(size))

    if isinstance(model, str):
        results = [ModelStatistics(np.arange(len(c)), prepare(c).baseline, []) for c in configurations]
    else:
        results = forecast_statistics(model, configurations, batch_size=batch_size, on_batch=report)
    if done < total:  # windows that cannot be forecast are done, too
        progress("evaluate", total, total)
    return results


def _scored(
    configuration: Configuration, result: ModelStatistics, seconds_prepare: float
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The row of one configuration (empty if no window was forecast), and a list of its omissions."""
    start = time.perf_counter()
    name = configuration.name
    skipped = [(f"{name}, window {row}", reason) for row, reason in result.skipped]
    if result.statistics is None:
        return {}, [(name, "no window could be forecast"), *skipped]
    baseline = prepare(configuration).baseline.select(result.rows)
    record = {key: getattr(configuration, key) for key in ("domain", "num_variates")}
    record |= {"configuration": name, "windows": len(result.rows)}
    for metric in METRICS.values():
        own, naive = metric.of(result.statistics), metric.of(baseline)
        record |= {metric.name: own, f"seasonal_naive_{metric.name}": naive}
        record[f"{metric.name}_ratio"] = own / naive if naive else float("nan")
    record |= leaderboard_metrics(result.statistics)
    skipped += [
        (name, f"no {metric.name} ratio: {_why_no_ratio(record, metric)}")
        for metric in METRICS.values()
        if not np.isfinite(record[f"{metric.name}_ratio"])
    ]
    scoring = result.seconds_scoring + time.perf_counter() - start
    record |= {"seconds_forward": result.seconds_forward, "seconds_prepare": seconds_prepare}
    record["seconds_total"] = seconds_prepare + result.seconds_forward + scoring
    return record, skipped


def _why_no_ratio(record: Mapping[str, Any], metric: Metric) -> str:
    """The reason why a row of `evaluate` has no ratio of a metric to Seasonal Naive."""
    naive = record[f"seasonal_naive_{metric.name}"]
    if np.isnan(record.get("MAE[0.5]", 0.0)):
        return "no target is known"
    if naive == 0:
        return "Seasonal Naive's is 0.0"
    if np.isnan(naive):
        return metric.undefined
    return f"the model's is {record[metric.name]}, Seasonal Naive's {naive}"


def geometric_mean_ratios(scores: Table) -> dict[str, float]:
    """Geometric means over configurations of the ratio to Seasonal Naive, by metric ("MASE", "CRPS", ...).

    scores : from `evaluate`

    Configurations whose ratio is undefined (`evaluate` lists them as skipped) do not count.

    Raises TspruneError if no configuration has a ratio.
    """
    means = {}
    for name, metric in METRICS.items():
        ratios = scores[f"{name}_ratio"].to_numpy(dtype=np.float64)
        known = ratios[np.isfinite(ratios)]
        if len(known) == 0:
            why = _why_no_ratio(scores.frame.iloc[-1].to_dict(), metric) if len(scores) else "there is none"
            constant = why.endswith(("is 0.0", "constant", "zero"))
            advice = "; evaluate on series that are not constant" if constant else ""
            raise TspruneError(f"no configuration has a {name} ratio ({why}){advice}")
        means[name] = float(aggregate(known))
    return means
