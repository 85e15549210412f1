"""What a score is: a number a component, and which end of it means redundant.

A family is a module whose scores are computed together, by one function: `weights`, `activations` (one
pass over windows), `gradients`, `effects`. A score is added by an entry in its family's `FAMILY` and the
number itself: a reduction of an attention map in `activations.MAP_SCORES`, a column of a table. All
families are in `tsprune.scores.catalogue`; ranking, agreement, heads@Xpp, command line and its `--list`
know a score from its entry alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from tsprune.anatomy import Component, Kind
from tsprune.data.suite import Suite
from tsprune.evaluation import Prepared
from tsprune.evaluation.sampling import PER_CONFIGURATION
from tsprune.models.forecaster import Forecaster
from tsprune.sweeps import BATCH_SIZE, Store

Order = Literal["high-to-low", "low-to-high"]
ORDERS: tuple[Order, ...] = ("high-to-low", "low-to-high")

# weights: no data; windows: a suite; gradient: a suite, and a forecast that can be differentiated
Needs = Literal["weights", "windows", "gradient"]

Progress = Callable[[int, int], None]  # (done, of all) of the family that is at work

Values = Mapping[Component, float]  # NaN, or no entry, where a component has no such score


@dataclasses.dataclass(frozen=True)
class Settings:
    """How scores of windows are computed.

    per_configuration : scores of activations look at so many windows of each configuration, evenly
        spread; those of losses (gradient, effect) at all
    batch_size : windows in one forecast; activations and gradients take a quarter of that
    seed : of the random signs of `screening`
    prepared, store : of the sweep for exact effects, see `tsprune.sweep.run`
    """

    per_configuration: int = PER_CONFIGURATION
    batch_size: int = BATCH_SIZE
    seed: int = 0
    prepared: Sequence[Prepared] | None = None
    store: Store | str | Path | None = None
    progress: Progress | None = None


@dataclasses.dataclass(frozen=True)
class Task:
    """Scores to be computed together.

    scores : of one family
    components : those that one of them exists for
    suite : with windows; None if the family needs none
    """

    model: Forecaster
    scores: Sequence[Score]
    components: Sequence[Component]
    suite: Suite | None
    settings: Settings

    def of(self, *names: str) -> tuple[Component, ...]:
        """The components that one of the scores with these names is wanted for."""
        kinds = {kind for score in self.scores if score.name in names for kind in score.kinds}
        return tuple(c for c in self.components if c.kind in kinds)

    @property
    def windows(self) -> Suite:
        """The suite of a family that needs one."""
        assert self.suite is not None, "a score of windows without a suite"
        return self.suite


Measure = Callable[[Task], Mapping[str, Values]]


@dataclasses.dataclass(frozen=True)
class Score:
    """A score of components.

    kinds : of the components that have it
    redundant : from which end components go, the most redundant first
    needs : what it is computed from
    about : formula and source, in a line
    measure : computes several scores of a family at once, by name
    """

    name: str
    kinds: tuple[Kind, ...]
    redundant: Order
    needs: Needs
    about: str
    measure: Measure = dataclasses.field(repr=False)
