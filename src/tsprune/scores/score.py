"""A score: one number for each component, and which end of the scale means redundant.

Scores with the same `measure` function are computed together: one pass over the windows serves all scores
of activations. Another package adds a score by an entry point of the group `tsprune.scores` that names a
`Score`, or a list of them:

    def size(task: ScoringTask) -> dict[str, Values]:
        return {"size": {c: float(task.model.anatomy.site(c).head_dim) for c in task.components}}

    SIZE = Score("size", ("head",), "low-to-high", "weights", "dimensions of the head", size)

`rank`, `score_table`, `agreement`, `heads_at`, `study` and `tsprune rank --list` then offer it by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from tsprune.anatomy import Component, Kind
from tsprune.data.suite import Suite
from tsprune.evaluation.sampling import PER_CONFIGURATION
from tsprune.models.forecaster import Forecaster
from tsprune.run_options import RunOptions

Order = Literal["high-to-low", "low-to-high"]
ORDERS: tuple[Order, ...] = ("high-to-low", "low-to-high")

# weights: no data; windows: a suite; gradient: a suite, and a differentiable forecast
Needs = Literal["weights", "windows", "gradient"]

Values = Mapping[Component, float]  # NaN, or no entry, for a component without this score


@dataclasses.dataclass(frozen=True)
class ScoringTask:
    """Scores to compute together.

    scores : scores with the same `measure` function
    components : components that at least one of the scores applies to
    suite : windows to compute them on; None only if no score needs windows
    per_configuration : scores of activations use this many windows per configuration, evenly spread; scores
        of losses (gradients, exact effects) use all windows
    options : `batch_size` is the number of windows in one forecast; activations and gradients, which need
        more memory, use a quarter of it
    """

    model: Forecaster
    scores: Sequence[Score]
    components: Sequence[Component]
    suite: Suite | None
    per_configuration: int = PER_CONFIGURATION
    options: RunOptions = dataclasses.field(default_factory=RunOptions)

    def scored_by(self, *names: str) -> tuple[Component, ...]:
        """The components that at least one of these scores applies to."""
        kinds = {kind for score in self.scores if score.name in names for kind in score.kinds}
        return tuple(c for c in self.components if c.kind in kinds)

    @property
    def windows(self) -> Suite:
        """The suite of scores that need windows."""
        assert self.suite is not None, "a score of windows without a suite"
        return self.suite


@dataclasses.dataclass(frozen=True)
class Score:
    """A score of components.

    kinds : kinds of component that it applies to
    redundant : order of removal, the most redundant component first
    needs : what it is computed from
    about : formula and source in one line
    measure : computes the scores of a task, by name; a missing component has no score
    """

    name: str
    kinds: tuple[Kind, ...]
    redundant: Order
    needs: Needs
    about: str
    measure: Callable[[ScoringTask], Mapping[str, Values]] = dataclasses.field(repr=False)
