"""The sweep engine: many ablations of one model on one suite, each forecast once.

1. Batches of windows are the outer loop, ablations the inner one: the clean pass of a batch is
   recorded once, and every ablation replays what lies upstream of it (`tsprune.replay`).
2. Of each forecast only sums per window are kept, so scores of any subset of windows (calibration
   and report, bootstrap draws) follow without another forward.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tsprune.ablation import Ablation, applied
from tsprune.capture import Reference, default_reference
from tsprune.data.suite import Configuration, Suite
from tsprune.errors import TspruneError
from tsprune.evaluation import (
    Batch,
    Prepared,
    WindowStatistics,
    batches,
    crps,
    mase,
    prepare,
    spearman_distance,
    unforecastable,
)
from tsprune.models.forecaster import Forecast, Forecaster
from tsprune.replay import Replay

BATCH_SIZE = 64
CLEAN = Ablation(())

Progress = Callable[[int, int], None]  # (forecasts of a batch done, of all)
Masks = Mapping[str, NDArray[np.bool_]]


@dataclasses.dataclass(frozen=True)
class WindowScores:
    """What one ablation scored on one configuration, window by window.

    statistics : of M windows
    spearman : float64 [M], Spearman distance of the median forecast to the clean one's
    """

    statistics: WindowStatistics
    spearman: NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Change:
    """Effect of an ablation: relative changes of geometric means over configurations.

    mase, crps : 0.06 is 6 % worse than without the ablation
    spearman : mean Spearman distance over windows
    """

    mase: float
    crps: float
    spearman: float


@dataclasses.dataclass(frozen=True)
class SweepResult:
    """Scores of every ablation (and of none) on every configuration.

    rows : configuration -> int64 [M], the windows that could be forecast
    scores : ablation -> configuration -> scores of those windows; `CLEAN` is among the ablations
    forecasts : (ablation, configuration) -> Forecast of those windows, for ablations asked to keep
    skipped : (window, reason) of what could not be forecast; a window that the unablated model
        answers with NaN or infinity is among them
    """

    rows: Mapping[str, NDArray[np.int64]]
    scores: Mapping[Ablation, Mapping[str, WindowScores]]
    forecasts: Mapping[tuple[Ablation, str], Forecast]
    skipped: tuple[tuple[str, str], ...]

    def change(self, ablation: Ablation, masks: Masks | None = None) -> Change:
        """Effect of `ablation` on all windows, or on those where `masks[configuration]` is true.

        A mask is over all windows of the configuration. A configuration without windows, or whose
        clean score is 0 or undefined there, does not count.
        """
        ratios: dict[str, list[float]] = {"mase": [], "crps": []}
        distances = []
        for name, rows in self.rows.items():
            chosen = np.ones(len(rows), bool) if masks is None else masks[name][rows]
            if not chosen.any():
                continue
            clean = self.scores[CLEAN][name].statistics.select(chosen)
            now = self.scores[ablation][name]
            ablated = now.statistics.select(chosen)
            distances.append(now.spearman[chosen])
            for metric, compute in (("mase", mase), ("crps", crps)):
                before = compute(clean)
                if before > 0:
                    ratios[metric].append(compute(ablated) / before)
        return Change(
            mase=_geometric_mean(ratios["mase"]) - 1,
            crps=_geometric_mean(ratios["crps"]) - 1,
            spearman=float(np.concatenate(distances).mean()) if distances else float("nan"),
        )


def _geometric_mean(values: Sequence[float]) -> float:
    # not scipy's gmean: it warns on the zeros and NaNs that an ablation may produce
    with np.errstate(all="ignore"):
        return float(np.exp(np.mean(np.log(values)))) if values else float("nan")


def run(
    model: Forecaster,
    suite: Suite,
    ablations: Sequence[Ablation],
    *,
    batch_size: int = BATCH_SIZE,
    keep: Collection[Ablation] = (),
    prepared: Sequence[Prepared] | None = None,
    reference: Reference | None = None,
    replay: bool = True,
    progress: Progress | None = None,
) -> SweepResult:
    """Forecasts the suite once without ablation and once under each of `ablations`.

    batch_size : windows forecast together
    keep : ablations whose forecasts are kept (`CLEAN` keeps the unablated ones)
    prepared : what `prepare` gave for each configuration, to share it between models
    reference : for mean and resample ablations; None records one from synthetic series
    replay : False computes every forecast from the start, with the same numbers

    Raises TspruneError for a suite of which no window can be forecast.
    """
    suite.require_windows()
    cells = list(dict.fromkeys((CLEAN, *ablations)))
    if reference is None and any(cell.mode != "zero" for cell in cells):
        every = [c for cell in cells if cell.mode != "zero" for c in cell.components]
        reference = default_reference(model, every)
    runner = _Runner(model, Replay(model) if replay else None, reference, frozenset(keep))
    ready = prepared or [prepare(configuration) for configuration in suite.configurations]
    work = [
        (p, batches(p.configuration, context_length=model.context_length, batch_size=batch_size))
        for p in ready
    ]
    total = len(cells) * sum(len(parts) for _, parts in work)
    done = 0
    collected: dict[tuple[Ablation, str], list[_BatchScores]] = {}
    for p, parts in work:
        for batch in parts:
            for cell, scores in runner.batch(p, batch, cells):
                collected.setdefault((cell, p.configuration.name), []).append(scores)
                done += 1
                if progress is not None:
                    progress(done, total)
    skipped = _skipped(model, suite, runner.unanswered)
    if not any(len(part.rows) for parts in collected.values() for part in parts):
        what, reason = skipped[-1]
        raise TspruneError(f"no window of {suite.name} could be forecast: {what}: {reason}")
    return _assemble(cells, collected, skipped)


def _skipped(
    model: Forecaster, suite: Suite, unanswered: Mapping[str, Sequence[int]]
) -> tuple[tuple[str, str], ...]:
    def left_out(c: Configuration) -> list[tuple[int, str]]:
        not_finite = [(row, "the forecast is not finite") for row in unanswered.get(c.name, ())]
        return sorted([*unforecastable(c, model.context_length), *not_finite])

    return suite.skipped + tuple(
        (f"{c.name}, window {row}", reason) for c in suite.configurations for row, reason in left_out(c)
    )


@dataclasses.dataclass(frozen=True)
class _BatchScores:
    rows: NDArray[np.int64]
    scores: WindowScores
    forecast: Forecast | None


@dataclasses.dataclass
class _Runner:
    model: Forecaster
    replay: Replay | None
    reference: Reference | None
    keep: frozenset[Ablation]
    unanswered: dict[str, list[int]] = dataclasses.field(default_factory=dict)  # configuration -> rows

    def batch(
        self, prepared: Prepared, batch: Batch, cells: Sequence[Ablation]
    ) -> Sequence[tuple[Ablation, _BatchScores]]:
        """Scores of one batch under every cell; the first cell is `CLEAN`."""
        horizon = prepared.configuration.horizon
        key = 0
        clean = self._clean(batch, horizon, key)
        finite = np.asarray(np.isfinite(clean.quantiles).all(axis=(1, 2)))
        if not finite.all():
            lost = self.unanswered.setdefault(prepared.configuration.name, [])
            lost += batch.rows[~finite].tolist()
        found = []
        for cell in cells:
            forecast = clean if cell is CLEAN else self._ablated(batch, horizon, cell, key)
            scores = WindowScores(
                prepared.statistics(forecast, batch.rows).select(finite),
                spearman_distance(forecast.median, clean.median)[finite],
            )
            kept = Forecast(forecast.quantiles[finite], forecast.levels) if cell in self.keep else None
            found.append((cell, _BatchScores(batch.rows[finite], scores, kept)))
        if self.replay is not None:
            self.replay.forget(key)
        return found

    def _clean(self, batch: Batch, horizon: int, key: int) -> Forecast:
        if self.replay is None:
            return self.model.forecast(batch.contexts, horizon)
        with self.replay.record(key):
            return self.model.forecast(batch.contexts, horizon)

    def _ablated(self, batch: Batch, horizon: int, cell: Ablation, key: int) -> Forecast:
        with applied(self.model, cell, reference=self.reference):
            if self.replay is None:
                return self.model.forecast(batch.contexts, horizon)
            with self.replay.reuse(key, cell.components):
                return self.model.forecast(batch.contexts, horizon)


def _assemble(
    cells: Sequence[Ablation],
    collected: Mapping[tuple[Ablation, str], Sequence[_BatchScores]],
    skipped: tuple[tuple[str, str], ...],
) -> SweepResult:
    rows: dict[str, NDArray[np.int64]] = {}
    scores: dict[Ablation, dict[str, WindowScores]] = {cell: {} for cell in cells}
    forecasts: dict[tuple[Ablation, str], Forecast] = {}
    for (cell, name), parts in collected.items():
        if not any(len(part.rows) for part in parts):
            continue
        found = np.concatenate([part.rows for part in parts])
        order = np.argsort(found)
        rows[name] = found[order]
        scores[cell][name] = WindowScores(
            WindowStatistics.concatenate([part.scores.statistics for part in parts]).select(order),
            np.concatenate([part.scores.spearman for part in parts])[order],
        )
        kept = [part.forecast for part in parts if part.forecast is not None]
        if kept:
            quantiles = np.concatenate([forecast.quantiles for forecast in kept])[order]
            forecasts[cell, name] = Forecast(quantiles, kept[0].levels)
    return SweepResult(rows, scores, forecasts, skipped)
