"""What it costs to remove sets of components, on calibration series, and how sure one can be of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tsprune.anatomy import Anatomy, Component
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.evaluation import changes
from tsprune.hooks.ablation import Ablation
from tsprune.models.forecaster import Forecaster
from tsprune.pruning.savings import is_inside
from tsprune.statistics import Estimate
from tsprune.sweeps.engine import BATCH_SIZE, Progress, run
from tsprune.sweeps.sweep_result import CLEAN, SweepResult, WindowScores

Components = tuple[Component, ...]


@dataclasses.dataclass(frozen=True)
class Scored:
    """What one ablation scored: configuration -> its windows, and their statistics."""

    rows: Mapping[str, NDArray[np.int64]]
    scores: Mapping[str, WindowScores]

    @classmethod
    def of(cls, result: SweepResult, ablation: Ablation) -> Self:
        """What `ablation` scored in a sweep."""
        return cls(result.rows, result.scores[ablation])


@dataclasses.dataclass(frozen=True)
class Losses:
    """Measures losses on calibration series.

    metric : whose geometric mean over configurations a loss is a relative change of
    confidence : that a loss on configurations like these is at most its `high`; `MEAN` takes the loss itself
    seed : of the bootstrap
    """

    calibration: Suite
    metric: str
    confidence: float
    seed: int = 0
    batch_size: int = BATCH_SIZE
    progress: Progress | None = None

    def scored(self, model: Forecaster, groups: Sequence[Components]) -> tuple[Scored, list[Scored]]:
        """(`model` as it is, `model` without each of the groups), on the calibration series."""
        ablations = [Ablation(group) for group in groups]
        result = run(model, self.calibration, ablations, batch_size=self.batch_size, progress=self.progress)
        return Scored.of(result, CLEAN), [Scored.of(result, ablation) for ablation in ablations]

    def change(self, before: Scored, after: Scored) -> Estimate:
        """The loss on the same windows; `high` is its upper limit. What is not finite cannot go."""
        series = {c.name: c.series for c in self.calibration.configurations}
        pairs = []
        for name, rows in before.rows.items():
            if not np.array_equal(rows, after.rows.get(name, ())):
                return UNKNOWN  # some windows cannot be forecast any more
            scores = before.scores[name].statistics, after.scores[name].statistics
            pairs.append(changes.Scored(name, scores[0], [scores[1]], series[name][rows]))
        level = 2 * self.confidence - 1  # of the interval whose upper end this is
        found = changes.change(pairs, self.metric, level=level, seed=self.seed)
        if self.confidence == MEAN:
            found = dataclasses.replace(found, low=found.value, high=found.value)
        return found if math.isfinite(found.value) and math.isfinite(found.high) else UNKNOWN

    def require_units(self) -> None:
        """Raises TspruneError if the calibration series are too few for a loss to have an upper limit."""
        forecast = [c for c in self.calibration.configurations if len(c)]
        if self.confidence == MEAN or len(forecast) > 1:
            return
        if len(forecast) == 1 and len(np.unique(forecast[0].series)) > 1:
            return
        raise TspruneError(
            "the calibration part is a single series, so a loss on it has no interval; add series or "
            f"configurations, or use confidence {MEAN} to trust the mean"
        )


MEAN = 0.5
UNKNOWN = Estimate(math.inf, math.inf, math.inf, 0.0, 0)


def joined(components: Sequence[Component], more: Component) -> Components:
    """`components` and `more`, without what is inside it."""
    return (*(c for c in components if not is_inside(c, more)), more)


def may_go(components: Sequence[Component], anatomy: Anatomy) -> bool:
    """Whether every stack keeps a layer that has an MLP or a head."""
    gone = frozenset(anatomy.expand(components))
    kept = {stack.name: False for stack in anatomy.stacks}
    for component in anatomy.components():
        inside = component.kind in ("head", "mlp")
        whole = component if component.mlp else dataclasses.replace(component, head=None)
        kept[component.stack] |= inside and component not in gone and whole not in gone
    return all(kept.values())
