"""Time left of a sweep: an ablation costs what replay does not spare it.

1. The clean pass of the first batch is timed: when each component's place in the network is reached, as a
   share of the pass (`reached`). An ablation is as deep as its first component.
2. Every forecast that is done adds its time to the rate of its depth, in seconds per step of its batch.
3. Rates of other depths are interpolated. So that they lie between two known ones from the start, the deepest
   ablation of the first batch comes first (`deepest_first`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np

from tsprune.anatomy import Component
from tsprune.evaluation import Batch
from tsprune.hooks.ablation import Ablation
from tsprune.hooks.capture import hook_at, point_of
from tsprune.models.forecaster import Forecaster
from tsprune.progress import Total
from tsprune.sweeps.cell_plan import SweepPlan, Unit
from tsprune.sweeps.sweep_result import CLEAN

Depths = Mapping[Component, float]

# steps that take about as long as the calls of a forecast, whatever is in its batch (4,600 and 5,000 of the
# bundled TimesFM and Chronos-Bolt)
_OVERHEAD = 4500
_DECODED = 100  # steps of history that take no longer than one that is decoded in a pass of its own
_CLEAN_DEPTH = -1.0  # of the clean pass, whose rate is its own


class Pace:
    """Counts the forecasts of a sweep, and expects the time of those left.

    report : called with (forecasts done, a `Total` of them)
    stepwise : whether the model decodes a forecast step by step (`Anatomy.tokens`)
    """

    def __init__(
        self,
        plan: SweepPlan,
        report: Callable[[int, int], None],
        clock: Callable[[], float] = time.perf_counter,
        *,
        stepwise: bool = False,
    ) -> None:
        self._units = plan.units()
        self._sizes = [batch_size(batch, stepwise=stepwise) for batch in plan.batches]
        self._report, self._clock = report, clock
        self._depths: Depths | None = None
        self._total = sum(unit.forecasts for unit in self._units)
        self._done, self._last = 0, clock()
        self._left = self._sizes_by_depth()
        self._seen: dict[float, tuple[float, float]] = {}  # depth -> (seconds, steps)

    def timed(self, depths: Depths | None) -> None:
        """Takes the depths of components once they are measured, before any ablation is done."""
        if self._depths is None and depths:
            self._depths = depths
            self._left = self._sizes_by_depth()

    def _depth(self, ablation: Ablation) -> float:
        return _CLEAN_DEPTH if ablation == CLEAN else depth_of(ablation, self._depths or {})

    def done(self, unit: Unit, ablations: Sequence[Ablation]) -> None:
        """Reports that the batch of `unit` was forecast under these ablations since the last call."""
        now = self._clock()
        seconds, self._last = (now - self._last) / max(1, len(ablations)), now
        size = self._sizes[unit.batch]
        for ablation in ablations:
            depth = self._depth(ablation)
            spent, steps = self._seen.get(depth, (0.0, 0.0))
            self._seen[depth] = spent + seconds, steps + size
            self._left[depth] = self._left.get(depth, 0.0) - size
            self._done += 1
            self._report(self._done, Total(self._total, self.seconds_left))

    @property
    def seconds_left(self) -> float:
        """Expected seconds of all forecasts that are not done."""
        rates = {depth: seconds / steps for depth, (seconds, steps) in self._seen.items() if steps}
        known = sorted(depth for depth in rates if depth != _CLEAN_DEPTH) or [*rates]
        if not known:
            return 0.0
        rates.setdefault(_CLEAN_DEPTH, rates[known[0]])
        left = {depth: size for depth, size in self._left.items() if size > 0}
        found = left.pop(_CLEAN_DEPTH, 0.0) * rates[_CLEAN_DEPTH]
        expected = np.interp([*left], known, [rates[depth] for depth in known])
        return found + float(expected @ np.array([*left.values()]))

    def _sizes_by_depth(self) -> dict[float, float]:
        """Depth -> steps of all batches under ablations of that depth; nothing is done yet."""
        found: dict[float, float] = {}
        for unit in self._units:
            for ablation in (CLEAN, *(one for one in unit.ablations if one != CLEAN)):
                depth = self._depth(ablation)
                found[depth] = found.get(depth, 0.0) + self._sizes[unit.batch]
        return found


def batch_size(batch: Batch, *, stepwise: bool = False) -> float:
    """Steps of history and forecast of the windows of a batch, and `_OVERHEAD` more."""
    decoded = batch.horizon * len(batch) * (_DECODED if stepwise else 1)
    return sum(map(len, batch.views)) + decoded + _OVERHEAD


def depth_of(ablation: Ablation, depths: Depths) -> float:
    """The depth of an ablation's first component; 0 where it is unknown."""
    return min((depths.get(component, 0.0) for component in ablation.components), default=0.0)


def deepest_first(ablations: Sequence[Ablation], depths: Depths) -> list[Ablation]:
    """The same ablations, the clean one and then the deepest in front."""
    clean = [one for one in ablations if one == CLEAN]
    others = [one for one in ablations if one != CLEAN]
    if others:
        deepest = max(range(len(others)), key=lambda place: depth_of(others[place], depths))
        others.insert(0, others.pop(deepest))
    return [*clean, *others]


@contextmanager
def reached(model: Forecaster) -> Iterator[dict[Component, float]]:
    """Depth of every component in the forecast that the context holds, filled in at its end.

    The share of the forecast's time after which the place of the component's ablation is first reached;
    components that are never reached are missing. A layer is as deep as its first sublayer.
    """
    anatomy = model.anatomy
    found: dict[Component, float] = {}
    times: dict[str, float] = {}
    parts = {component: anatomy.expand([component]) for component in anatomy.components()}
    points = {point_of(anatomy, part) for group in parts.values() for part in group}
    start = time.perf_counter()
    with model.alone(keeps=True), ExitStack() as hooks:
        for point in points:

            def reach(_: object, name: str = f"{point.path} {point.side}") -> None:
                times.setdefault(name, time.perf_counter())

            hooks.callback(hook_at(model.module, point, reach).remove)
        yield found
    whole = time.perf_counter() - start
    for component, group in parts.items():
        at = [f"{point.path} {point.side}" for point in (point_of(anatomy, part) for part in group)]
        if known := [times[name] for name in at if name in times]:
            found[component] = (min(known) - start) / whole
