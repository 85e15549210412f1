"""The result of a sweep: scores per window, and the effects of ablations that follow from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tsprune.evaluation import METRICS, WindowStatistics, aggregate
from tsprune.hooks.ablation import Ablation
from tsprune.models.forecaster import Forecast

CLEAN = Ablation(())

Masks = Mapping[str, NDArray[np.bool_]]


@dataclasses.dataclass(frozen=True)
class WindowScores:
    """Scores of one ablation on one configuration, window by window.

    statistics : of M windows
    spearman : float64 [M], Spearman distance of the median forecast to the clean one's
    """

    statistics: WindowStatistics
    spearman: NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class CellScores:
    """A cell, or one batch of it: one ablation on windows of one configuration.

    rows : int64 [M], the windows that could be forecast
    scores : of those windows
    forecast : of those windows, if it was asked to be kept
    seconds : wall-clock time that forecasting and scoring took
    """

    rows: NDArray[np.int64]
    scores: WindowScores
    forecast: Forecast | None
    seconds: float

    @classmethod
    def joined(cls, parts: Sequence[CellScores]) -> CellScores:
        """The windows of all parts, in ascending order."""
        rows = np.concatenate([part.rows for part in parts])
        order = np.argsort(rows)
        scores = WindowScores(
            WindowStatistics.concatenate([part.scores.statistics for part in parts]).select(order),
            np.concatenate([part.scores.spearman for part in parts])[order],
        )
        kept = [part.forecast for part in parts if part.forecast is not None]
        forecast = None
        if len(kept) == len(parts):
            quantiles = np.concatenate([one.quantiles for one in kept])[order]
            forecast = Forecast(quantiles, kept[0].levels)
        return cls(rows[order], scores, forecast, sum(part.seconds for part in parts))


@dataclasses.dataclass(frozen=True)
class Change:
    """Effect of an ablation: relative changes of geometric means over configurations.

    metrics : name of the metric -> its change; 0.06 is 6 % worse than without the ablation
    spearman : mean Spearman distance over windows
    """

    metrics: Mapping[str, float]
    spearman: float

    def __getitem__(self, metric: str) -> float:
        return self.metrics[metric]


@dataclasses.dataclass(frozen=True)
class SweepResult:
    """Scores of every ablation (and of none) on every configuration.

    rows : configuration -> int64 [M], numbers of the windows with a forecast
    scores : ablation -> configuration -> scores of those windows; `CLEAN` is among the ablations
    forecasts : (ablation, configuration) -> Forecast of those windows, for ablations asked to keep
    skipped : (window, reason) of windows without a forecast, including those whose unablated forecast is
        not finite
    failed : (ablation, configuration) -> error of the cells that raised; they have no scores
    seconds : configuration -> wall-clock time that unablated forecasts and their scoring took
    partial : ablation -> configuration -> bool [M], the windows that it was measured on, of ablations that
        were not measured on all; they are compared with the unablated scores of these
    """

    rows: Mapping[str, NDArray[np.int64]]
    scores: Mapping[Ablation, Mapping[str, WindowScores]]
    forecasts: Mapping[tuple[Ablation, str], Forecast]
    skipped: tuple[tuple[str, str], ...]
    failed: Mapping[tuple[Ablation, str], str] = dataclasses.field(default_factory=dict)
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    partial: Mapping[Ablation, Masks] = dataclasses.field(default_factory=dict)

    def windows(self, ablation: Ablation, name: str, masks: Masks | None = None) -> NDArray[np.bool_]:
        """bool [M], the windows of a configuration with scores of an ablation, those of `masks` only."""
        rows = self.rows[name]
        chosen = np.ones(len(rows), dtype=np.bool_) if masks is None else masks[name][rows]
        return chosen & self.partial[ablation][name] if ablation in self.partial else chosen

    def change(self, ablation: Ablation, masks: Masks | None = None) -> Change:
        """Effect of `ablation` on all windows, or on those where `masks[configuration]` is true.

        A mask covers all windows of its configuration. Configurations without windows, or with a clean score
        of 0 or NaN, are left out. Everything is NaN for an ablation that failed on any configuration.
        """
        if any(cell == ablation for cell, _ in self.failed):
            return Change(dict.fromkeys(METRICS, float("nan")), float("nan"))
        ratios: dict[str, list[float]] = {metric: [] for metric in METRICS}
        distances = []
        for name in self.rows:
            chosen = self.windows(ablation, name, masks)
            if not chosen.any():
                continue
            clean = self.scores[CLEAN][name].statistics.select(chosen)
            now = self.scores[ablation][name]
            ablated = now.statistics.select(chosen)
            distances.append(now.spearman[chosen])
            for name, metric in METRICS.items():
                before = metric.of(clean)
                if before > 0:
                    ratios[name].append(metric.of(ablated) / before)
        return Change(
            {name: float(aggregate(found)) - 1 for name, found in ratios.items()},
            spearman=float(np.concatenate(distances).mean()) if distances else float("nan"),
        )
