"""The sweep engine: many ablations of one model on one suite, each forecast once.

1. The plan (`tsprune.sweeps.cell_plan`) lists the batches of windows and the ablations each needs.
2. Batches are the outer loop, ablations the inner one, so the clean pass of a batch runs once
   (`tsprune.sweeps.worker`). An executor distributes the batches: in this process, or on a cluster.
3. One collector (`tsprune.sweeps.collector`) joins the outcomes, so no number depends on the executor.
4. A store (`tsprune.sweeps.store`) keeps every batch as soon as it is done, and stored batches are not
   forecast again. With a store, an ablation that raises is recorded as failed, and the others go on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from contextlib import ExitStack, closing
from typing import Unpack

from tsprune.arguments import checked
from tsprune.data.suite import Suite
from tsprune.hooks.ablation import Ablation
from tsprune.hooks.capture import Reference, default_reference
from tsprune.models.forecaster import Forecaster
from tsprune.progress import showing, within
from tsprune.run_options import Options, RunOptions
from tsprune.sweeps.cell_plan import SweepPlan, Unit, make_plan
from tsprune.sweeps.collector import Collector
from tsprune.sweeps.pace import Pace
from tsprune.sweeps.store import open_store
from tsprune.sweeps.sweep_result import SweepResult
from tsprune.sweeps.worker import Outcome, Worker


@dataclasses.dataclass(frozen=True)
class SweepWork:
    """The work of an executor.

    model : loaded here; a cluster loads its own by `model.name`
    reference : for mean and resample ablations; None records the default
    keep : ablations whose forecasts are kept
    go_on : an ablation that raises is recorded, and does not end the sweep
    memory : bytes that the records of a clean pass may hold
    pace : told which forecasts are done
    """

    model: Forecaster
    plan: SweepPlan
    reference: Reference | None
    keep: frozenset[Ablation]
    replay: bool
    go_on: bool
    memory: int
    pace: Pace


Executor = Callable[[SweepWork], Generator[tuple[Unit, Outcome], None, None]]


@checked
def run(
    model: Forecaster,
    suite: Suite,
    ablations: Sequence[Ablation],
    *,
    keep: Collection[Ablation] = (),
    reference: Reference | None = None,
    replay: bool = True,
    stage: str = "sweep",
    executor: Executor | None = None,
    device: str | None = None,
    **options: Unpack[Options],
) -> SweepResult:
    """Forecasts the suite once without ablation and once under each of `ablations`.

    keep : ablations whose forecasts are kept (`CLEAN` keeps the unablated ones)
    reference : for mean and resample ablations; None records one from synthetic series
    replay : False computes every forecast from the start, with the same numbers
    stage : name of this work in progress reports, which count forecasts of a batch
    executor : runs the work; None runs it in this process, `tsprune.sweeps.cluster` has another
    device : kind of device ("cpu", "cuda") the executor forecasts on; None: the processor the model is on
    options : keywords of `tsprune.run_options.RunOptions`. With a store, finished cells are looked up and
        kept, and an ablation that raises is in `SweepResult.failed` instead of ending the sweep

    A batch that does not fit into memory is halved (see `Worker.outcome`). Windows of similar horizon share
    batches across configurations (`tsprune.evaluation.batching`).

    Raises TspruneError for a suite of which no window can be forecast.
    """
    how = RunOptions(**options)
    with ExitStack() as contexts:
        store = contexts.enter_context(open_store(how.store))
        plan = make_plan(
            model,
            suite,
            ablations,
            batch_size=how.batch_size,
            memory=how.memory,
            keep=keep,
            reference=reference,
            store=store,
            device=device,
        )
        units = plan.units()
        report = within(contexts.enter_context(showing(how.progress)), stage)
        pace = Pace(plan, report, stepwise=model.anatomy.tokens)
        go_on = store is not None
        work = SweepWork(model, plan, reference, frozenset(keep), replay, go_on, how.memory, pace)
        collector = Collector(model.name, plan, store, work.keep)
        if units:
            # closed at once, also by an exception: an executor may have processes to stop
            with closing((executor or here)(work)) as outcomes:
                for unit, outcome in outcomes:
                    collector.take(unit, outcome)
        return collector.result(model.context_length, suite)


def here(work: SweepWork) -> Generator[tuple[Unit, Outcome], None, None]:
    """The executor of this process: one unit after the other."""
    plan = work.plan
    units = plan.units()
    reference = work.reference or recorded_reference(work.model, plan.ablations_of(units))
    worker = Worker(
        work.model, reference, work.keep, replay=work.replay, go_on=work.go_on, memory=work.memory
    )
    for unit in units:
        batch, truth = plan.batches[unit.batch], plan.truth(unit)

        def done(ablations: Sequence[Ablation], unit: Unit = unit) -> None:
            work.pace.timed(worker.depths)
            work.pace.done(unit, ablations)

        yield unit, worker.outcome(batch, truth, unit.ablations, done)


def recorded_reference(model: Forecaster, ablations: Iterable[Ablation]) -> Reference | None:
    """The default reference for the ablations that need one; None if none does."""
    wanted = [component for one in ablations if one.mode != "zero" for component in one.components]
    return default_reference(model, wanted) if wanted else None
