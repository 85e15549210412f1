"""A set of components that was removed on the way somewhere, and what that was measured to cost and save."""

from __future__ import annotations

import dataclasses

from tsprune.pruning.losses import Components
from tsprune.statistics import Estimate


@dataclasses.dataclass(frozen=True)
class Step:
    """A set of components that was removed and measured.

    components : none inside another
    saved : expected share of the original's cost
    loss, limit : relative to the original, on the calibration series, and the loss's upper limit
    lowest : the lowest loss of the sets on the way to this one, and 0
    """

    components: Components = ()
    saved: float = 0.0
    loss: float = 0.0
    limit: float = 0.0
    lowest: float = 0.0
    before: Step | None = dataclasses.field(default=None, repr=False)

    def fits(self, max_loss: float) -> bool:
        """Whether the limit is within `max_loss` of the original, and the loss within it of `lowest`."""
        return self.limit <= max_loss and (1 + self.loss) / (1 + self.lowest) - 1 <= max_loss

    def path(self) -> list[Step]:
        """The steps to this one, this one the last; the original is not among them."""
        earlier = self.before.path() if self.before is not None else []
        return [*earlier, self] if self.components else earlier

    def then(self, components: Components, saved: float, change: Estimate) -> Step:
        """The step that leads from here to `components`."""
        lowest = min(self.lowest, change.value)
        return Step(components, saved, change.value, change.high, lowest, self)
