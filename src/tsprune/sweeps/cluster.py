"""Sweeps on a Ray cluster: processes of several machines work on the units of one plan.

1. The driver has the plan and the store; workers only forecast. Large units are split by ablation
   until there are a few for every worker.
2. Batches are put into Ray's object store once. A worker process loads the checkpoint (by its name,
   from a path that every machine sees, or the hub) with its first unit, and keeps it.
3. Outcomes stream back and are stored as they come. A unit whose worker or machine is lost is
   given to another; the driver takes each unit's outcome once, so nothing is doubled.
"""

from __future__ import annotations

import dataclasses
import math
import os
import uuid
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from typing import Any

import torch

from tsprune.cost.allocator import keep_freed_memory
from tsprune.errors import TspruneError, one_line
from tsprune.evaluation import Batch, Truth
from tsprune.extras import install
from tsprune.hooks.ablation import Ablation
from tsprune.hooks.capture import Reference
from tsprune.models import load
from tsprune.models.forecaster import SamplingForecaster
from tsprune.sweeps.cell_plan import SweepPlan, Unit
from tsprune.sweeps.engine import SweepWork, recorded_reference
from tsprune.sweeps.key import checkpoint_digest
from tsprune.sweeps.reachable import problem_at
from tsprune.sweeps.sweep_result import CLEAN
from tsprune.sweeps.worker import Outcome, Worker

LOCAL = "local"
UNITS_PER_WORKER = 4  # at least, where there is enough to do: none waits long for the last one
LEAST_ABLATIONS = 8  # of a split unit: each part repeats the clean pass
RETRIES = 5  # of a unit whose worker was lost


@dataclasses.dataclass(frozen=True)
class RayExecutor:
    """An executor (see `tsprune.sweeps.run`) that works on a Ray cluster.

    address : of the cluster; "auto" finds one that runs, "local" starts one on this machine; a
        connection that is there already is used, and left open
    device : device of the workers; pass it to `run` as well, because it is part of the protocol
    cpus, gpus : resources of one worker; fractions of a GPU share it
    workers : most workers of a local cluster; None: one per core

    Raises TspruneError if Ray is not installed or the cluster cannot be reached.
    """

    address: str = LOCAL
    device: str = "cpu"
    cpus: float = 1.0
    gpus: float = 0.0
    workers: int | None = None

    def __post_init__(self) -> None:
        ray = import_ray()
        if self.address != LOCAL and not ray.is_initialized() and (problem := _problem(self.address)):
            raise TspruneError(f"cannot reach a Ray cluster at {self.address!r} ({problem})")

    def __call__(self, work: SweepWork) -> Generator[tuple[Unit, Outcome], None, None]:
        ray = import_ray()
        with self._connection(ray):
            units = split_units(work.plan, self._slots(ray))
            task = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=RETRIES)(_work_on)
            windows = {
                unit.batch: ray.put((work.plan.batches[unit.batch], work.plan.truth(unit)))
                for unit in work.plan.units()
            }
            # inside a list Ray passes the reference on, and only a worker that sets itself up fetches it
            reference = [ray.put(work.reference)] if work.reference is not None else []
            job = self._job(work)
            counted = _counted(units)
            pending = {}
            try:
                for unit in units:
                    ref = task.remote(job, reference, windows[unit.batch], unit.ablations)
                    pending[ref] = unit
                while pending:
                    (ready,), _ = ray.wait(list(pending), num_returns=1)
                    unit = pending.pop(ready)
                    outcome = _outcome(ray, ready, unit, go_on=work.go_on)
                    del ready  # its result need not stay in the cluster
                    yield unit, outcome
                    work.pace.done(unit, counted[unit])
            finally:
                for ref in pending:
                    ray.cancel(ref, force=True)

    def _job(self, work: SweepWork) -> _Job:
        model = work.model
        samples, seed = None, 0
        if isinstance(model, SamplingForecaster):
            samples, seed = model.samples, model.seed
        return _Job(
            run=uuid.uuid4().hex,
            model=model.name,
            checkpoint=work.plan.checkpoint or checkpoint_digest(model),
            dtype=model.dtype,
            device=self.device,
            context_length=model.context_length,
            samples=samples,
            seed=seed,
            replaced=tuple(a for a in work.plan.ablations_of(work.plan.units()) if a.mode != "zero"),
            keep=work.keep,
            replay=work.replay,
            go_on=work.go_on,
            memory=work.memory,
        )

    def _slots(self, ray: Any) -> int:
        """Number of workers that fit into the cluster now."""
        there = ray.cluster_resources()
        wanted = {"CPU": self.cpus, "GPU": self.gpus}
        fitting = [int(there.get(name, 0.0) / amount) for name, amount in wanted.items() if amount > 0]
        slots = min(fitting, default=1)
        if slots < 1:
            raise TspruneError(
                f"no worker with {self.cpus:g} CPUs and {self.gpus:g} GPUs fits into the cluster, which has "
                f"{there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs"
            )
        return slots

    @contextmanager
    def _connection(self, ray: Any) -> Iterator[None]:
        if ray.is_initialized():
            yield
            return
        local = self.address == LOCAL
        alone: dict[str, Any] = {}
        if local:  # Ray's workers have the lowest priority, which beside other work is none
            settings = {"worker_niceness": 0}
            alone = {"num_cpus": self.workers, "include_dashboard": False, "_system_config": settings}
        try:
            with _loopback_only() if local else nullcontext():
                ray.init(address=self.address, log_to_driver=False, logging_level="ERROR", **alone)
        except (ConnectionError, ValueError, OSError, RuntimeError) as error:
            raise TspruneError(
                f"cannot reach a Ray cluster at {self.address!r} ({one_line(error, 120)})"
            ) from None
        try:
            yield
        finally:
            ray.shutdown()


def _problem(address: str) -> str | None:
    """The reason why no cluster can be at an address, or at the one "auto" resolves to; see `problem_at`."""
    if os.environ.get("RAY_USE_TLS", "0") not in ("0", "false", "False"):
        return None  # a cluster with TLS answers only clients with its certificates
    return problem_at(os.environ.get("RAY_ADDRESS", "") if address == "auto" else address)


@contextmanager
def _loopback_only() -> Iterator[None]:
    """A cluster started inside the context listens on the loopback interface only.

    Ray does so where a cluster is not enabled for a platform, and else turns 127.0.0.1 into the address
    that other machines see.
    """
    name = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
    before = os.environ.get(name)
    constants: Any = import_module("ray._private.ray_constants")  # read when ray was imported
    enabled = constants.ENABLE_RAY_CLUSTER
    os.environ[name], constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = enabled
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def import_ray() -> Any:
    """The module `ray` with usage reports off; without it, a TspruneError that names the extra."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # this package sets the workers' device; Ray would warn of a future change of its default
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise TspruneError(f"Ray is not installed; install it with: {install('ray')}") from None
    return ray


# --- units ---------------------------------------------------------------------------------------


def split_units(plan: SweepPlan, workers: int) -> list[Unit]:
    """The plan's units, largest first, split by ablation if that keeps more workers busy."""
    units = plan.units()
    if workers == 1:
        return units
    cap = sum(_size(plan, unit) for unit in units) / (UNITS_PER_WORKER * workers)
    parts = [part for unit in units for part in _parts(unit, math.ceil(_size(plan, unit) / cap))]
    return sorted(parts, key=lambda unit: -_size(plan, unit))


def _parts(unit: Unit, count: int) -> list[Unit]:
    count = min(count, max(1, len(unit.ablations) // LEAST_ABLATIONS))
    # every count-th, so that each part has ablations of early and of late layers
    return [dataclasses.replace(unit, ablations=unit.ablations[part::count]) for part in range(count)]


def _size(plan: SweepPlan, unit: Unit) -> int:
    """A number proportional to its running time, roughly."""
    batch = plan.batches[unit.batch]
    return sum(len(view) + batch.horizon for view in batch.views) * unit.forecasts


def _counted(units: list[Unit]) -> dict[Unit, list[Ablation]]:
    """Forecasts counted for each (split) unit: one clean pass per batch, although every part repeats it."""
    seen = {unit.batch for unit in units if CLEAN in unit.ablations}
    counted = {}
    for unit in units:
        counted[unit] = [*([] if unit.batch in seen else [CLEAN]), *unit.ablations]
        seen.add(unit.batch)
    return counted


def _outcome(ray: Any, ready: Any, unit: Unit, *, go_on: bool) -> Outcome:
    try:
        outcome: Outcome = ray.get(ready)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, TspruneError):
            raise TspruneError(str(error.cause)) from None
        raise
    except ray.exceptions.RaySystemError as error:
        raise TspruneError(f"the Ray cluster failed ({' '.join(str(error).split())[:200]})") from None
    except ray.exceptions.RayError as error:
        reason = f"its worker was lost {RETRIES + 1} times ({type(error).__name__})"
        if not go_on:
            raise TspruneError(f"a batch cannot be computed: {reason}") from None
        return Outcome({}, dict.fromkeys(unit.ablations, reason))
    return outcome


# --- in a worker ---------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Job:
    """The arguments that set up a worker process.

    run : unique name of the sweep
    replaced : ablations that need reference activations
    """

    run: str
    model: str
    checkpoint: str
    dtype: torch.dtype
    device: str
    context_length: int
    samples: int | None
    seed: int
    replaced: tuple[Ablation, ...]
    keep: frozenset[Ablation]
    replay: bool
    go_on: bool
    memory: int


_workers: dict[str, Worker] = {}  # of this process, by run: the last one only


def _work_on(
    job: _Job,
    reference: list[Any],
    windows: tuple[Batch, Truth],
    ablations: tuple[Ablation, ...],
) -> Outcome:
    """The task: one unit, in a worker process."""
    if job.run not in _workers:
        _workers.clear()
        _workers[job.run] = _set_up(job, reference)
    return _workers[job.run].outcome(*windows, ablations)


def _set_up(job: _Job, box: list[Any]) -> Worker:
    torch.set_num_threads(1)
    keep_freed_memory()
    model = load(job.model, device=job.device, dtype=job.dtype, samples=job.samples, seed=job.seed)
    if checkpoint_digest(model) != job.checkpoint:
        raise TspruneError(
            f"{job.model} is another checkpoint on a worker than here; use a path that every machine shares"
        )
    if model.context_length != job.context_length:
        raise TspruneError(f"a worker's context length is {model.context_length}, not {job.context_length}")
    reference: Reference | None = import_ray().get(box[0]) if box else recorded_reference(model, job.replaced)
    return Worker(model, reference, job.keep, replay=job.replay, go_on=job.go_on, memory=job.memory)
