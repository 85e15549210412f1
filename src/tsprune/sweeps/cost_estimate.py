"""The cost of a sweep on this machine, from a few timed forecasts.

1. Batches are grouped by horizon and length of history (in powers of two). The longest batch of each group
   stands for it, or as many of its windows as take `_SECONDS` to forecast.
2. It is forecast without ablation, and without the shallowest and the deepest component of each stack. Replay
   spares an ablation what lies before its depth (`tsprune.sweeps.pace`): costs between are interpolated.
3. Ablations of one sublayer may share a forecast: in the largest group some of the deepest are timed so.
4. All else is counted: batches cost by their steps, groups beyond the time limit as the largest one does.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from tsprune.evaluation import Batch, Truth
from tsprune.hooks.ablation import Ablation
from tsprune.hooks.capture import Reference
from tsprune.models.forecaster import Forecaster
from tsprune.replay import record_bytes
from tsprune.run_options import MEMORY
from tsprune.sweeps.cell_plan import SweepPlan, Unit
from tsprune.sweeps.engine import recorded_reference
from tsprune.sweeps.pace import Depths, batch_size, depth_of
from tsprune.sweeps.sweep_result import CLEAN
from tsprune.sweeps.worker import Worker

LIMIT = 20.0  # seconds of probes, but for one that is running
_SECONDS = 1.5  # of one forecast that is timed
_LEAST = 2  # windows of a probe
_SHORT, _REPEATS = 0.5, 2  # seconds of forecasts that are repeated, and how often
_JOINT = 8  # ablations that are timed together

_Group = tuple[int, int]  # horizon, power of two of the longest history


@dataclasses.dataclass(frozen=True)
class SweepCost:
    """The work left in a sweep.

    cells, finished : of the plan, and of these in the store
    forecasts : number of forecasts of one batch that are left
    seconds : expected for them, one after the other on this machine
    peak_bytes : expected peak memory (of the GPU, or resident in this process)
    probed : number of forecasts that were timed
    """

    cells: int
    finished: int
    forecasts: int
    seconds: float
    peak_bytes: int
    probed: int


@dataclasses.dataclass(frozen=True)
class StageCost:
    """The expected cost of one stage of a piece of work on this machine.

    forecasts : of a batch that are left to make; 0 of stages that do other work
    """

    stage: str
    forecasts: int
    seconds: float
    peak_bytes: int


@dataclasses.dataclass(frozen=True)
class _Rate:
    """Seconds per step of a batch (`batch_size`): unablated, and ablated at each of the timed depths."""

    clean: float
    ablated: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class SweepRates:
    """Times of forecasts by group of batches and depth of the ablation.

    depths, timed : of all components, and of the ablations that were timed, ascending
    joint : time of ablations of these depths that share a forecast, relative to one alone
    window_bytes : of the record of a clean pass, per window of the largest group
    probed : number of forecasts that were timed
    """

    rates: dict[_Group, _Rate]
    usual: _Rate
    depths: Depths
    timed: tuple[float, ...]
    joint: tuple[float, ...]
    window_bytes: int
    probed: int

    def seconds(self, batch: Batch, ablations: Sequence[Ablation]) -> float:
        """Expected seconds of a batch, forecast unablated and under each of `ablations`."""
        rate = self.rates.get(group_of(batch), self.usual)
        depths = [depth_of(ablation, self.depths) for ablation in ablations if ablation != CLEAN]
        total = rate.clean
        if depths and self.timed:
            total += float(np.interp(depths, self.timed, np.multiply(rate.ablated, self.joint)).sum())
        return total * batch_size(batch)

    def forward(self, batches: Sequence[Batch]) -> float:
        """Expected seconds of one unablated pass."""
        return sum(self.seconds(batch, ()) for batch in batches)

    def sweep(self, plan: SweepPlan) -> float:
        """Expected seconds of the work left in a plan."""
        return sum(self.seconds(plan.batches[unit.batch], unit.ablations) for unit in plan.units())

    def peak_bytes(self, model: Forecaster, batches: Sequence[Batch], memory: int) -> int:
        """Expected peak memory of a sweep over `batches` with `memory` bytes for records."""
        widest = max(map(len, batches), default=0)
        return process_peak(model.device) + min(memory, widest * self.window_bytes)


def estimate(
    model: Forecaster, plan: SweepPlan, *, reference: Reference | None = None, memory: int = MEMORY
) -> SweepCost:
    """Times a few forecasts of the work left in `plan` and extrapolates; nothing is stored."""
    units, cells = plan.units(), list(plan.cells())
    rates = measured_rates(model, plan, units, reference=reference, memory=memory) if units else None
    batches = [plan.batches[unit.batch] for unit in units]
    return SweepCost(
        cells=len(cells),
        finished=len(cells) - len(plan.missing),
        forecasts=sum(unit.forecasts for unit in units),
        seconds=rates.sweep(plan) if rates else 0.0,
        peak_bytes=rates.peak_bytes(model, batches, memory) if rates else process_peak(model.device),
        probed=rates.probed if rates else 0,
    )


def measured_rates(
    model: Forecaster,
    plan: SweepPlan,
    units: Sequence[Unit],
    *,
    reference: Reference | None = None,
    memory: int = MEMORY,
    limit: float = LIMIT,
) -> SweepRates:
    """Times forecasts of some of `units`, at least one, for about `limit` seconds at most."""
    end = time.monotonic() + limit
    groups: dict[_Group, list[Unit]] = {}
    for unit in units:
        groups.setdefault(group_of(plan.batches[unit.batch]), []).append(unit)
    sizes = {
        group: sum(batch_size(plan.batches[unit.batch]) for unit in found) for group, found in groups.items()
    }
    ordered = sorted(groups, key=lambda group: -sizes[group])
    reference = reference or recorded_reference(model, plan.ablations_of(units))
    probe = _Probe(model, Worker(model, reference, frozenset(), go_on=True, memory=memory), plan)
    rates: dict[_Group, _Rate] = {}
    for group in ordered:
        if rates and time.monotonic() > end:
            break
        rates[group] = probe.rate(max(groups[group], key=lambda unit: batch_size(plan.batches[unit.batch])))
    usual = rates[ordered[0]]
    batch = plan.batches[groups[ordered[0]][0].batch]
    window_bytes = record_bytes(model, batch.contexts[:_LEAST], batch.horizon)
    timed = tuple(depth_of(one, probe.depths) for one in probe.ends)
    return SweepRates(rates, usual, probe.depths, timed, probe.joint, window_bytes, probe.probed)


def group_of(batch: Batch) -> _Group:
    """Horizon and power of two of the longest history."""
    return batch.horizon, math.ceil(math.log2(max(map(len, batch.views))))


class _Probe:
    """Timed forecasts of parts of batches."""

    def __init__(self, model: Forecaster, worker: Worker, plan: SweepPlan) -> None:
        self._model, self._worker, self._plan = model, worker, plan
        self.depths: Depths = {}
        self.ends: list[Ablation] = []
        self.joint: tuple[float, ...] = ()
        self.probed = 0

    def rate(self, unit: Unit) -> _Rate:
        """The rate of a batch, or of as many of its windows as the time allows."""
        ablations = [one for one in unit.ablations if one != CLEAN]
        first = not self.depths
        batch, truth = self._plan.batches[unit.batch], self._plan.truth(unit)
        few = batch.together[:_LEAST]
        if first:  # the first forecast of a process is slower than all others
            self._timed(*_windows(batch, truth, few), ())
        clean = self._timed(*_windows(batch, truth, few), ())[0]
        count = max(len(few), int(len(few) * _SECONDS / max(clean, 1e-9)))
        part, of_part = _windows(batch, truth, batch.together[:count])
        if first:  # of few windows the calls, not their sizes, would decide the depths
            self._worker.depths = None
            self._timed(part, of_part, ())
            self.depths = self._worker.depths or {}
            self.ends = self._ends(ablations)
        seconds = self._timed(part, of_part, self.ends)
        for _ in range(_REPEATS):  # a shape's first forecasts are slower
            if sum(seconds) < _SHORT:
                again = self._timed(part, of_part, self.ends)
                seconds = [min(pair) for pair in zip(seconds, again, strict=True)]
        if first:
            self.joint = self._joint(part, of_part, ablations, seconds[-1])
        clean, *ablated = (one / batch_size(part) for one in seconds)
        return _Rate(clean, tuple(ablated))

    def _ends(self, ablations: Sequence[Ablation]) -> list[Ablation]:
        """The shallowest and the deepest of `ablations` of each stack that they begin in, by depth."""
        stacks: dict[str, list[Ablation]] = {}
        for one in sorted(ablations, key=self._depth):
            first = min(one.components, key=lambda component: self.depths.get(component, 0.0))
            stacks.setdefault(first.stack, []).append(one)
        found = [one for group in stacks.values() for one in (group[0], group[-1])]
        return sorted(dict.fromkeys(found), key=self._depth)

    def _depth(self, ablation: Ablation) -> float:
        return depth_of(ablation, self.depths)

    def _joint(
        self, batch: Batch, truth: Truth, ablations: Sequence[Ablation], alone: float
    ) -> tuple[float, ...]:
        """`SweepRates.joint`, from some of the deepest ablations; their first forecasts are trials."""
        if not self.ends:
            return ()
        deepest = self.ends[-1]
        alike = [one for one in ablations if self._depth(one) == self._depth(deepest)][:_JOINT]
        factor = 1.0
        if len(alike) > 1 and alone > 0:
            self._timed(batch, truth, alike)
            seconds = self._timed(batch, truth, alike)[1:]
            factor = min(1.0, sum(seconds) / len(seconds) / alone)
        stacks = [one.components[0].stack for one in self.ends]
        last = stacks[-1] if len({*stacks}) > 1 else None  # of a single stack the deepest alone
        return tuple(
            factor if stack == last or one == deepest else 1.0
            for one, stack in zip(self.ends, stacks, strict=True)
        )

    def _timed(self, batch: Batch, truth: Truth, ablations: Sequence[Ablation]) -> list[float]:
        """Seconds of the clean forecast, and of each ablated one."""
        times = [time.perf_counter()]
        order: list[Ablation] = []

        def done(made: Sequence[Ablation]) -> None:
            order.extend(made)
            times.append(time.perf_counter())

        self._worker.outcome(batch, truth, tuple(ablations), done)
        self.probed += 1 + len(ablations)
        spans = (after - before for before, after in pairwise(times))
        took = dict(zip(order, spans, strict=True))
        return [took.get(one, 0.0) for one in (CLEAN, *ablations)]


def _windows(batch: Batch, truth: Truth, some: Sequence[NDArray[np.int64]]) -> tuple[Batch, Truth]:
    """Some windows of a batch, each with all its variates."""
    places = np.concatenate(some).tolist()
    return batch.select(places), truth.select(places)


def process_peak(device: torch.device) -> int:
    """The most memory that this process took so far: of the GPU, or resident."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource  # not on every platform

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)
