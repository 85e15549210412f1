"""From a model and a suite to one row of scores per configuration.

1. `prepare` computes once what no model changes: seasonal errors, and Seasonal Naive's statistics.
2. `forecast_statistics` runs the model over batches of windows (`tsprune.evaluation.batching`) and
   keeps sums per window, not forecasts.
3. `evaluate` turns them into metrics and ratios to Seasonal Naive over the same windows.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tsprune.data.suite import Configuration, Suite
from tsprune.errors import TspruneError
from tsprune.evaluation.batching import Batch, Rows, shared_batches, unforecastable
from tsprune.evaluation.metrics import (
    CRPS_LEVELS,
    INTERVAL_ALPHA,
    WindowStatistics,
    leaderboard_metrics,
    seasonal_errors,
    window_statistics,
)
from tsprune.evaluation.seasonal_naive import naive_quantiles

if TYPE_CHECKING:
    import pandas as pd

    from tsprune.models.forecaster import Forecast, Predictor

# (configuration, windows done so far, windows of the suite)
Progress = Callable[[str, int, int], None]

SEASONAL_NAIVE: Literal["seasonal-naive"] = "seasonal-naive"
# bounds the memory that Seasonal Naive's quantiles take at long horizons
_BASELINE_CHUNK = 512


# --- 1. what no model changes --------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Truth:
    """What forecasts of B windows are measured by.

    targets : float32 [B, H], NaN where unknown
    season_errors : float64 [B], see `metrics.seasonal_errors`
    """

    targets: NDArray[np.float32]
    season_errors: NDArray[np.float64]

    def select(self, places: Sequence[int]) -> Truth:
        """Of the windows at some places, in that order."""
        chosen = list(places)
        return Truth(self.targets[chosen], self.season_errors[chosen])

    def statistics(self, forecast: Forecast) -> WindowStatistics:
        """Statistics of a forecast of these windows."""
        with np.errstate(invalid="ignore"):  # windows without a finite forecast, which callers leave out
            mean, interval = _from_samples(forecast)
            return window_statistics(
                quantiles=forecast.quantiles,
                levels=forecast.levels,
                targets=self.targets,
                season_errors=self.season_errors,
                mean=mean,
                interval=interval,
            )


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A configuration with what is computed once for all models and ablations.

    season_errors : float64 [N], see `metrics.seasonal_errors`
    baseline : Seasonal Naive's statistics of the N windows
    """

    configuration: Configuration
    season_errors: NDArray[np.float64]
    baseline: WindowStatistics

    def statistics(self, forecast: Forecast, rows: Rows | None = None) -> WindowStatistics:
        """Statistics of a forecast of the windows `rows` (all N by default), in that order."""
        chosen = np.arange(len(self.configuration)) if rows is None else rows
        return Truth(self.configuration.targets[chosen], self.season_errors[chosen]).statistics(forecast)


def truth_of(prepared: Sequence[Prepared], batch: Batch) -> Truth:
    """What forecasts of a batch are measured by; the numbers in `batch` are those of `prepared`.

    Steps after a window's own horizon are unknown: they do not count.
    """
    targets = np.full((len(batch), batch.horizon), np.nan, dtype=np.float32)
    season_errors = np.empty(len(batch))
    for number, places in batch.members.items():
        of, rows = prepared[number], batch.rows[places]
        targets[places, : of.configuration.horizon] = of.configuration.targets[rows]
        season_errors[places] = of.season_errors[rows]
    return Truth(targets, season_errors)


def _from_samples(
    forecast: Forecast,
) -> tuple[NDArray[np.floating] | None, NDArray[np.floating] | None]:
    """Mean [B, H] and 95 % interval [B, 2, H] of sampled paths, as gluonts' SampleForecast has them."""
    if forecast.samples is None:
        return None, None
    ordered = np.sort(forecast.samples, axis=1)
    last = ordered.shape[1] - 1
    tails = [round(last * level) for level in (INTERVAL_ALPHA / 2, 1 - INTERVAL_ALPHA / 2)]
    return forecast.samples.mean(axis=1, dtype=np.float64), ordered[:, tails]


def prepare(configuration: Configuration) -> Prepared:
    """Seasonal errors and Seasonal Naive's statistics of a configuration, over whole histories."""
    c = configuration
    season_errors = seasonal_errors(c.contexts, c.season)
    parts = []
    for start in range(0, len(c), _BASELINE_CHUNK):
        chunk = slice(start, start + _BASELINE_CHUNK)
        parts.append(
            window_statistics(
                quantiles=naive_quantiles(c.contexts[chunk], horizon=c.horizon, season=c.season),
                levels=CRPS_LEVELS,
                targets=c.targets[chunk],
                season_errors=season_errors[chunk],
            )
        )
    return Prepared(c, season_errors, WindowStatistics.concatenate(parts))


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


def forecast_statistics(
    model: Predictor,
    prepared: Sequence[Prepared],
    *,
    batch_size: int,
    on_batch: Callable[[Batch], None] | None = None,
) -> list[ModelStatistics]:
    """Runs `model` over configurations, keeping sums per window only; one result a configuration.

    on_batch : called with each batch when it is done

    A window the model refuses (TspruneError) or answers with NaN or infinity is listed in `skipped`.
    """
    from tsprune.models.forecaster import with_gaps  # brings in torch, which the pieces do not need

    configurations = [p.configuration for p in prepared]
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
        statistics = truth_of(prepared, batch).statistics(forecast)
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


def evaluate(
    model: Predictor | Literal["seasonal-naive"],
    suite: Suite,
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
    prepared: Sequence[Prepared] | None = None,
) -> pd.DataFrame:
    """Scores a model on every configuration of a suite.

    Windows of like horizons are forecast together, whichever configuration they are of; so scores of a
    part of a suite may differ in their last bits (see `tsprune.evaluation.batching`).

    model : a Forecaster, anything that forecasts like one (a Predictor), or "seasonal-naive"
    batch_size : windows forecast together
    progress : called after each batch with (a configuration in it, windows done, windows of the suite)
    prepared : what `prepare` returned for each configuration of the suite, to save computing it again

    Returns one row per configuration: configuration, domain, num_variates, windows, MASE, CRPS,
    seasonal_naive_MASE, seasonal_naive_CRPS (over the same windows), MASE_ratio, CRPS_ratio, the
    leaderboard's metrics by their names there, and wall-clock seconds: seconds_forward (inside the
    model; of shared batches the windows' part), seconds_prepare (seasonal errors and baseline),
    seconds_total (everything).
    `frame.attrs["skipped"]` lists (configuration or window, reason) of all that was left out.

    Raises TspruneError for an unknown model name or a suite without windows.
    """
    if isinstance(model, str) and model != SEASONAL_NAIVE:
        raise TspruneError(
            f'evaluate takes a loaded model or "{SEASONAL_NAIVE}", not "{model}"; see tsprune.load'
        )
    suite.require_windows()
    if prepared is not None and not _belongs(prepared, suite):
        raise TspruneError("`prepared` must hold the configurations of the suite, in its order")
    ready = [(p, 0.0) for p in prepared] if prepared else [_timed(c) for c in suite.configurations]
    skipped: list[tuple[str, str]] = list(suite.skipped)
    records: list[dict[str, Any]] = []
    results = _results(model, [one for one, _ in ready], batch_size, progress)
    for (one, seconds), result in zip(ready, results, strict=True):
        record, left_out = _scored(one, result, seconds)
        skipped += left_out
        if record is not None:
            records.append(record)
    if not records:
        raise TspruneError(f"no window of {suite.name} could be forecast: {skipped[-1][0]}: {skipped[-1][1]}")
    import pandas as pd  # 0.3 s, which those who only use the pieces need not pay

    frame = pd.DataFrame.from_records(records)
    frame.attrs["suite"] = suite.name
    frame.attrs["model"] = model if isinstance(model, str) else model.name
    frame.attrs["skipped"] = skipped
    return frame


def _belongs(prepared: Sequence[Prepared], suite: Suite) -> bool:
    return len(prepared) == len(suite.configurations) and all(
        p.configuration is c for p, c in zip(prepared, suite.configurations, strict=True)
    )


def _timed(configuration: Configuration) -> tuple[Prepared, float]:
    start = time.perf_counter()
    return prepare(configuration), time.perf_counter() - start


def _results(
    model: Predictor | Literal["seasonal-naive"],
    prepared: Sequence[Prepared],
    batch_size: int,
    progress: Progress | None,
) -> list[ModelStatistics]:
    names = [p.configuration.name for p in prepared]
    total, done = sum(len(p.configuration) for p in prepared), 0

    def report(name: str, windows: int) -> None:
        nonlocal done
        done += windows
        if progress is not None and windows:
            progress(name, done, total)

    if isinstance(model, str):
        results = [
            ModelStatistics(np.arange(len(p.configuration)), p.baseline, (), 0.0, 0.0) for p in prepared
        ]
    else:
        results = forecast_statistics(
            model,
            prepared,
            batch_size=batch_size,
            on_batch=lambda batch: report(names[int(batch.configurations[0])], len(batch)),
        )
    report(names[-1], total - done)  # what could not be forecast is done, too
    return results


def _scored(
    prepared: Prepared, result: ModelStatistics, seconds_prepare: float
) -> tuple[dict[str, Any] | None, list[tuple[str, str]]]:
    """The row of one configuration (None if no window was forecast), and what was left out of it."""
    start = time.perf_counter()
    name = prepared.configuration.name
    skipped = [(f"{name}, window {row}", reason) for row, reason in result.skipped]
    if result.statistics is None:
        return None, [(name, "no window could be forecast"), *skipped]
    record = _record(prepared.configuration, result.statistics, prepared.baseline.select(result.rows))
    skipped += [
        (name, f"no {metric} ratio: {_why_no_ratio(record, metric)}")
        for metric in ("MASE", "CRPS")
        if not np.isfinite(record[f"{metric}_ratio"])
    ]
    scoring = result.seconds_scoring + time.perf_counter() - start
    record["seconds_forward"] = result.seconds_forward
    record["seconds_prepare"] = seconds_prepare
    record["seconds_total"] = seconds_prepare + result.seconds_forward + scoring
    return record, skipped


def _record(
    configuration: Configuration, statistics: WindowStatistics, baseline: WindowStatistics
) -> dict[str, Any]:
    metrics, naive = leaderboard_metrics(statistics), leaderboard_metrics(baseline)
    record: dict[str, Any] = {
        "configuration": configuration.name,
        "domain": configuration.domain,
        "num_variates": configuration.num_variates,
        "windows": len(statistics),
    }
    pairs = {"MASE": "MASE[0.5]", "CRPS": "mean_weighted_sum_quantile_loss"}
    record |= {short: metrics[name] for short, name in pairs.items()}
    record |= {f"seasonal_naive_{short}": naive[name] for short, name in pairs.items()}
    record |= {
        f"{short}_ratio": metrics[name] / naive[name] if naive[name] else float("nan")
        for short, name in pairs.items()
    }
    return record | metrics


def _why_no_ratio(record: Mapping[str, Any], metric: str) -> str:
    """Why a row of `evaluate` has no ratio to Seasonal Naive in MASE or CRPS."""
    naive = record[f"seasonal_naive_{metric}"]
    if np.isnan(record.get("MAE[0.5]", 0.0)):
        return "no target is known"
    if naive == 0:
        return "Seasonal Naive's is 0.0"
    if np.isnan(naive):
        return "all targets are zero" if metric == "CRPS" else "the histories are constant"
    return f"the model's is {record[metric]}, Seasonal Naive's {naive}"


def geometric_mean_ratios(frame: pd.DataFrame) -> dict[str, float]:
    """{"MASE": ..., "CRPS": ...}: geometric means over configurations of the ratio to Seasonal Naive.

    A configuration whose ratio is undefined (`evaluate` lists it as skipped) does not count.

    Raises TspruneError if no configuration has a ratio.
    """
    means = {}
    for name in ("MASE", "CRPS"):
        ratios = frame[f"{name}_ratio"].to_numpy(dtype=np.float64)
        known = ratios[np.isfinite(ratios)]
        if len(known) == 0:
            why = _why_no_ratio(frame.iloc[-1].to_dict(), name) if len(frame) else "there is none"
            constant = why.endswith(("is 0.0", "constant", "zero"))
            advice = "; evaluate on series that are not constant" if constant else ""
            raise TspruneError(f"no configuration has a {name} ratio ({why}){advice}")
        with np.errstate(divide="ignore"):
            means[name] = float(np.exp(np.log(known).mean()))
    return means
