"""The loss of removing sets of components, measured on calibration series with its upper limit."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.evaluation import changes
from tsprune.hooks.ablation import Ablation
from tsprune.models.forecaster import Forecaster
from tsprune.progress import Progress, silent
from tsprune.pruning.savings import Components
from tsprune.run_options import BATCH_SIZE
from tsprune.statistics import Estimate
from tsprune.sweeps.engine import run
from tsprune.sweeps.sweep_result import CLEAN, WindowScores

MEAN_CONFIDENCE = 0.5  # the loss itself is its upper limit
_NOT_FINITE = Estimate(math.inf, math.inf, math.inf, 0.0, 0)


@dataclasses.dataclass(frozen=True)
class AblationScores:
    """Scores of one ablation: configuration -> the windows that could be forecast, and their scores."""

    rows: Mapping[str, NDArray[np.int64]]
    scores: Mapping[str, WindowScores]


@dataclasses.dataclass(frozen=True)
class CalibrationLosses:
    """Measures losses on calibration series.

    metric : the loss is the relative change of its geometric mean over configurations
    confidence : probability that the loss on such configurations is at most the estimate's `high`
    seed : of the bootstrap
    """

    calibration: Suite
    metric: str
    confidence: float
    seed: int = 0
    batch_size: int = BATCH_SIZE
    progress: Progress = silent

    def scored(
        self, model: Forecaster, groups: Sequence[Components]
    ) -> tuple[AblationScores, list[AblationScores]]:
        """(scores of `model`, its scores without each of the groups) on the calibration series."""
        ablations = [Ablation(group) for group in groups]
        result = run(
            model,
            self.calibration,
            ablations,
            stage="measuring",
            batch_size=self.batch_size,
            progress=self.progress,
        )
        clean, *others = (AblationScores(result.rows, result.scores[one]) for one in (CLEAN, *ablations))
        return clean, others

    def change(self, before: AblationScores, after: AblationScores) -> Estimate:
        """The loss on the same windows; infinite if any is lost or the loss is not finite."""
        series = {c.name: c.series for c in self.calibration.configurations}
        pairs = []
        for name, rows in before.rows.items():
            if not np.array_equal(rows, after.rows.get(name, ())):
                return _NOT_FINITE  # some windows can no longer be forecast
            scores = before.scores[name].statistics, after.scores[name].statistics
            pairs.append(changes.Scored(name, scores[0], [scores[1]], series[name][rows]))
        level = 2 * self.confidence - 1  # of the two-sided interval with this upper end
        found = changes.change(pairs, self.metric, level=level, seed=self.seed)
        if self.confidence == MEAN_CONFIDENCE:
            found = dataclasses.replace(found, low=found.value, high=found.value)
        return found if math.isfinite(found.value) and math.isfinite(found.high) else _NOT_FINITE

    def require_units(self) -> None:
        """Raises TspruneError if the calibration series are too few for a loss to have an upper limit."""
        forecast = [c for c in self.calibration.configurations if len(c)]
        several = len(forecast) > 1 or any(len(np.unique(c.series)) > 1 for c in forecast)
        if several or self.confidence == MEAN_CONFIDENCE:
            return
        raise TspruneError(
            "the calibration part is a single series, so a loss on it has no interval; add series or "
            f"configurations, or use confidence {MEAN_CONFIDENCE} to trust the mean"
        )


@dataclasses.dataclass(frozen=True)
class RemovalStep:
    """A set of components on a search path, with its measured loss and expected saving.

    components : none inside another
    saved : expected share of the original's cost
    loss, limit : relative to the original, on the calibration series, and the upper limit of the loss
    lowest : the lowest loss of the sets before this one, or 0
    """

    components: Components = ()
    saved: float = 0.0
    loss: float = 0.0
    limit: float = 0.0
    lowest: float = 0.0
    before: RemovalStep | None = dataclasses.field(default=None, repr=False)

    def fits(self, max_loss: float) -> bool:
        """Whether the limit is within `max_loss` of the original, and the loss within it of `lowest`."""
        return self.limit <= max_loss and (1 + self.loss) / (1 + self.lowest) - 1 <= max_loss

    def path(self) -> list[RemovalStep]:
        """The steps up to and including this one, without the original."""
        earlier = self.before.path() if self.before is not None else []
        return [*earlier, self] if self.components else earlier

    def then(self, components: Components, saved: float, change: Estimate) -> RemovalStep:
        """The next step, from here to `components`."""
        lowest = min(self.lowest, change.value)
        return RemovalStep(components, saved, change.value, change.high, lowest, self)
