"""From a model and a suite to one row of scores per configuration.

1. `prepare` computes once what no model changes: seasonal errors, and Seasonal Naive's statistics.
2. `batches` puts windows of similar length together, cut to the model's context length.
3. `forecast_statistics` runs the model over the batches and keeps sums per window, not forecasts.
4. `evaluate` turns them into metrics and ratios to Seasonal Naive over the same windows.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tsprune.data.suite import Configuration, Suite
from tsprune.errors import TspruneError
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

Rows = NDArray[np.int64]
# (configuration, windows done so far, windows of the suite)
Progress = Callable[[str, int, int], None]

SEASONAL_NAIVE: Literal["seasonal-naive"] = "seasonal-naive"
# bounds the memory that Seasonal Naive's quantiles take at long horizons
_BASELINE_CHUNK = 512


# --- 1. what no model changes --------------------------------------------------------------------


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
        mean, interval = _from_samples(forecast)
        return window_statistics(
            quantiles=forecast.quantiles,
            levels=forecast.levels,
            targets=self.configuration.targets[chosen],
            season_errors=self.season_errors[chosen],
            mean=mean,
            interval=interval,
        )


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


# --- 2. batches ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Batch:
    """Windows to forecast together.

    rows : int64 [B], which windows of the configuration
    views : their histories, cut to the context length; not to be written to
    """

    rows: Rows
    views: tuple[NDArray[np.float32], ...]

    @property
    def contexts(self) -> list[NDArray[np.float32]]:
        """Fresh copies of the histories: upstream code may write to what it is given."""
        return [np.array(view, dtype=np.float32) for view in self.views]


def batches(configuration: Configuration, *, context_length: int, batch_size: int) -> list[Batch]:
    """The windows that can be forecast in batches of similar length, longest first.

    Every window is in exactly one batch but for those that `unforecastable` lists. Ties keep the
    configuration's order, so the same arguments give the same batches.

    Raises TspruneError if `context_length` or `batch_size` is below 1.
    """
    if context_length < 1 or batch_size < 1:
        raise TspruneError(
            f"context length and batch size must be at least 1, not {context_length} and {batch_size}"
        )
    left_out = {row for row, _ in unforecastable(configuration, context_length)}
    rows = np.array([row for row in range(len(configuration)) if row not in left_out], dtype=np.int64)
    lengths = np.array([min(len(configuration.contexts[row]), context_length) for row in rows])
    # longest first: what does not fit into memory fails at once, and estimates of the rest are safe
    ordered = rows[np.argsort(-lengths, kind="stable")] if len(rows) else rows
    return [
        Batch(chunk, tuple(configuration.contexts[int(row)][-context_length:] for row in chunk))
        for chunk in (ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size))
    ]


def unforecastable(configuration: Configuration, context_length: int) -> list[tuple[int, str]]:
    """(row, reason) of the windows no model can forecast from their last `context_length` steps."""
    reasons = []
    for row, context in enumerate(configuration.contexts):
        visible = context[-context_length:]
        if len(visible) == 0:
            reasons.append((row, "no history before the window"))
        elif not (np.isfinite(visible[-1]) or np.isfinite(visible).any()):
            reasons.append((row, f"no observed value in the last {len(visible)} steps of its history"))
    return reasons


# --- 3. forecasts to statistics ------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ModelStatistics:
    """What a model scored on a configuration.

    rows : int64 [M], ascending, the windows it forecast
    statistics : of those windows, in that order
    skipped : (row, reason) of the others
    seconds_forward : wall-clock seconds inside `Forecaster.forecast`
    """

    rows: Rows
    statistics: WindowStatistics | None
    skipped: tuple[tuple[int, str], ...]
    seconds_forward: float


def forecast_statistics(
    model: Predictor,
    prepared: Prepared,
    *,
    batch_size: int,
    on_batch: Callable[[int], None] | None = None,
) -> ModelStatistics:
    """Runs `model` over a configuration, keeping sums per window only.

    on_batch : called after each batch with the number of windows done so far

    A window the model refuses (TspruneError) or answers with NaN or infinity is listed in `skipped`.
    """
    configuration = prepared.configuration
    skipped = unforecastable(configuration, model.context_length)
    done: list[Rows] = []
    parts: list[WindowStatistics] = []
    seconds = 0.0
    pending = batches(configuration, context_length=model.context_length, batch_size=batch_size)
    while pending:
        batch = pending.pop(0)
        contexts = batch.contexts
        start = time.perf_counter()
        try:
            forecast = model.forecast(contexts, configuration.horizon)
        except TspruneError as error:
            if len(batch.rows) == 1:
                skipped.append((int(batch.rows[0]), str(error)))
            else:  # find out which of them it was
                pending[:0] = [
                    Batch(batch.rows[i : i + 1], batch.views[i : i + 1]) for i in range(len(batch.rows))
                ]
            continue
        finally:
            seconds += time.perf_counter() - start
        finite = np.asarray(np.isfinite(forecast.quantiles).all(axis=(1, 2)))
        skipped += [(int(row), "the forecast is not finite") for row in batch.rows[~finite]]
        done.append(batch.rows[finite])
        parts.append(prepared.statistics(forecast, batch.rows).select(finite))
        if on_batch is not None:
            on_batch(sum(len(rows) for rows in done))
    return _assembled(done, parts, skipped, seconds)


def _assembled(
    done: list[Rows], parts: list[WindowStatistics], skipped: list[tuple[int, str]], seconds: float
) -> ModelStatistics:
    rows = np.concatenate(done) if done else np.zeros(0, dtype=np.int64)
    order = np.argsort(rows)
    statistics = WindowStatistics.concatenate(parts).select(order) if len(rows) else None
    return ModelStatistics(rows[order], statistics, tuple(sorted(skipped)), seconds)


# --- 4. scores -----------------------------------------------------------------------------------


def evaluate(
    model: Predictor | Literal["seasonal-naive"],
    suite: Suite,
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
    prepared: Sequence[Prepared] | None = None,
) -> pd.DataFrame:
    """Scores a model on every configuration of a suite.

    model : a Forecaster, anything that forecasts like one (a Predictor), or "seasonal-naive"
    batch_size : windows forecast together
    progress : called after each batch with (configuration, windows done, windows of the suite)
    prepared : what `prepare` returned for each configuration of the suite, to save computing it again

    Returns one row per configuration: configuration, domain, num_variates, windows, MASE, CRPS,
    seasonal_naive_MASE, seasonal_naive_CRPS (over the same windows), MASE_ratio, CRPS_ratio, the
    leaderboard's metrics by their names there, and wall-clock seconds: seconds_forward (inside the
    model), seconds_prepare (seasonal errors and baseline), seconds_total (everything).
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
    records: list[dict[str, Any]] = []
    skipped: list[tuple[str, str]] = list(suite.skipped)
    total, before = len(suite), 0
    for index, configuration in enumerate(suite.configurations):

        def report(windows: int, before: int = before, name: str = configuration.name) -> None:
            if progress is not None:
                progress(name, before + windows, total)

        record, left_out = _evaluate_one(
            model, configuration, prepared[index] if prepared else None, batch_size, report
        )
        before += len(configuration)
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


def _evaluate_one(
    model: Predictor | Literal["seasonal-naive"],
    configuration: Configuration,
    prepared: Prepared | None,
    batch_size: int,
    report: Callable[[int], None],
) -> tuple[dict[str, Any] | None, list[tuple[str, str]]]:
    start = time.perf_counter()
    ready = prepare(configuration) if prepared is None else prepared
    seconds_prepare = time.perf_counter() - start
    if isinstance(model, str):
        result = ModelStatistics(np.arange(len(configuration)), ready.baseline, (), 0.0)
    else:
        result = forecast_statistics(model, ready, batch_size=batch_size, on_batch=report)
    report(len(configuration))  # the skipped ones are done, too
    skipped = [(f"{configuration.name}, window {row}", reason) for row, reason in result.skipped]
    if result.statistics is None:
        return None, [(configuration.name, "no window could be forecast"), *skipped]
    record = _record(configuration, result.statistics, ready.baseline.select(result.rows))
    skipped += [
        (configuration.name, f"no {name} ratio: Seasonal Naive's is {record[f'seasonal_naive_{name}']}")
        for name in ("MASE", "CRPS")
        if not np.isfinite(record[f"{name}_ratio"])
    ]
    record["seconds_forward"] = result.seconds_forward
    record["seconds_prepare"] = seconds_prepare
    record["seconds_total"] = time.perf_counter() - start
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
            raise TspruneError(
                f"no configuration has a {name} ratio; evaluate on series that are not constant"
            )
        with np.errstate(divide="ignore"):
            means[name] = float(np.exp(np.log(known).mean()))
    return means
