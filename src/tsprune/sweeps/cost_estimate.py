"""The cost of a sweep, extrapolated from a few of its forecasts.

Units of work are grouped by horizon and length of history (in powers of two). The longest batch of
each group is forecast unablated and under a few of its ablations, spread evenly over the plan;
the others are taken to cost as much per window.
"""

from __future__ import annotations

import dataclasses
import math
import sys

import torch

from tsprune.hooks.ablation import Ablation
from tsprune.hooks.capture import Reference
from tsprune.models.forecaster import Forecaster
from tsprune.run_options import MEMORY
from tsprune.sweeps.cell_plan import SweepPlan, Unit
from tsprune.sweeps.engine import recorded_reference
from tsprune.sweeps.sweep_result import CLEAN
from tsprune.sweeps.worker import Worker

PROBES = 3  # ablations that are timed per group

_Group = tuple[int, int]  # horizon, power of two of the longest history


@dataclasses.dataclass(frozen=True)
class SweepCost:
    """The work left in a sweep.

    cells, finished : of the plan, and of these in the store
    forecasts : number of forecasts of one batch that are left
    seconds : expected for them, one after the other on this machine
    peak_bytes : peak memory of the probes (of the GPU, or resident in this process)
    probed : number of forecasts that were timed
    """

    cells: int
    finished: int
    forecasts: int
    seconds: float
    peak_bytes: int
    probed: int


def estimate(
    model: Forecaster, plan: SweepPlan, *, reference: Reference | None = None, memory: int = MEMORY
) -> SweepCost:
    """Forecasts a few batches of the work left in `plan` and extrapolates; nothing is stored."""
    units = plan.units()
    groups: dict[_Group, list[Unit]] = {}
    for unit in units:
        groups.setdefault(_group(plan, unit), []).append(unit)
    reference = reference or recorded_reference(model, plan.ablations_of(units))
    worker = Worker(model, reference, frozenset(), go_on=True, memory=memory)
    seconds, probed = 0.0, 0
    for index, group in enumerate(groups.values()):
        probe = max(group, key=lambda unit: _values(plan, unit))
        if index == 0:  # the first forecast of a process is slower than all others
            _timed(worker, plan, probe, ())
            probed += 1
        chosen = _spread([ablation for ablation in probe.ablations if ablation != CLEAN])
        clean, ablated = _timed(worker, plan, probe, chosen)
        probed += 1 + len(chosen)
        for unit in group:
            share = _windows(plan, unit) / _windows(plan, probe)
            seconds += share * (clean + (unit.forecasts - 1) * ablated)
    cells = list(plan.cells())
    return SweepCost(
        cells=len(cells),
        finished=len(cells) - len(plan.missing),
        forecasts=sum(unit.forecasts for unit in units),
        seconds=seconds,
        peak_bytes=_peak_bytes(model.device),
        probed=probed,
    )


def _windows(plan: SweepPlan, unit: Unit) -> int:
    return len(plan.batches[unit.batch])


def _longest(plan: SweepPlan, unit: Unit) -> int:
    return max(len(view) for view in plan.batches[unit.batch].views)


def _values(plan: SweepPlan, unit: Unit) -> int:
    return _windows(plan, unit) * _longest(plan, unit)


def _group(plan: SweepPlan, unit: Unit) -> _Group:
    return plan.batches[unit.batch].horizon, math.ceil(math.log2(_longest(plan, unit)))


def _spread(ablations: list[Ablation]) -> list[Ablation]:
    """At most `PROBES`, from the middles of equal parts."""
    count = min(PROBES, len(ablations))
    return [ablations[(2 * i + 1) * len(ablations) // (2 * count)] for i in range(count)]


def _timed(
    worker: Worker, plan: SweepPlan, unit: Unit, ablations: list[Ablation] | tuple[()]
) -> tuple[float, float]:
    """Seconds of the clean forecast of a unit, and of an ablated one on average."""
    found = worker.outcome(plan.batches[unit.batch], plan.truth(unit), (CLEAN, *ablations)).scores
    seconds: dict[Ablation, float] = {}
    for (ablation, _), scores in found.items():  # of every configuration in the batch its share
        seconds[ablation] = seconds.get(ablation, 0.0) + scores.seconds
    clean = seconds.pop(CLEAN, 0.0)
    return clean, sum(seconds.values()) / len(seconds) if seconds else 0.0


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource  # not on every platform

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)
