"""The sweep engine: many ablations of one model on one suite, each forecast once.

1. The plan (`tsprune.sweep.plan`) says which batches of windows are needed under which ablations.
2. Batches are the outer loop, ablations the inner one: the clean pass of a batch is recorded once,
   and every ablation replays what lies upstream of it (`tsprune.replay`).
3. Of each forecast only sums per window are kept, so scores of any subset of windows (calibration
   and report, bootstrap draws) follow without another forward.
4. With a store (`tsprune.sweep.store`), what it holds is not forecast again, every batch is kept as
   soon as it is done, and an ablation that raises is recorded as failed while the others go on.

Where units are worked on (here, or on a cluster) is an executor's business; what comes back is
collected in one place, so the numbers do not depend on it.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import torch

from tsprune.ablation import Ablation, applied
from tsprune.capture import Reference, default_reference
from tsprune.data.suite import Configuration, Suite
from tsprune.errors import TspruneError
from tsprune.evaluation import Batch, Prepared, spearman_distance, unforecastable
from tsprune.models.checkpoints import one_line
from tsprune.models.forecaster import Forecast, Forecaster
from tsprune.replay import MEMORY, Replay, in_parts
from tsprune.sweep.plan import Cell, SweepPlan, Unit, make_plan
from tsprune.sweep.result import CLEAN, CellScores, SweepResult, WindowScores
from tsprune.sweep.store import Store

BATCH_SIZE = 64

Progress = Callable[[int, int], None]  # (forecasts of a batch done, of all)

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one unit gave: scores by ablation, or the error of those that raised."""

    scores: Mapping[Ablation, CellScores]
    failed: Mapping[Ablation, str]


@dataclasses.dataclass(frozen=True)
class Work:
    """What an executor needs to know.

    model : loaded here; a cluster loads its own by `model.name`
    reference : for mean and resample ablations; None records the default
    keep : ablations whose forecasts are kept
    go_on : an ablation that raises is recorded, and does not end the sweep
    memory : bytes that the records of a clean pass may hold
    on_forecasts : to be called with the number of forecasts made since the last call
    """

    model: Forecaster
    plan: SweepPlan
    reference: Reference | None
    keep: frozenset[Ablation]
    replay: bool
    go_on: bool
    memory: int
    on_forecasts: Callable[[int], None]


Executor = Callable[[Work], Generator[tuple[Unit, Outcome], None, None]]


def run(
    model: Forecaster,
    suite: Suite,
    ablations: Sequence[Ablation],
    *,
    batch_size: int = BATCH_SIZE,
    keep: Collection[Ablation] = (),
    prepared: Sequence[Prepared] | None = None,
    reference: Reference | None = None,
    replay: bool = True,
    progress: Progress | None = None,
    store: Store | str | Path | None = None,
    executor: Executor | None = None,
    device: str | None = None,
    memory: int = MEMORY,
) -> SweepResult:
    """Forecasts the suite once without ablation and once under each of `ablations`.

    batch_size : windows forecast together
    keep : ablations whose forecasts are kept (`CLEAN` keeps the unablated ones)
    prepared : what `prepare` gave for each configuration, to share it between models
    reference : for mean and resample ablations; None records one from synthetic series
    replay : False computes every forecast from the start, with the same numbers
    store : where finished cells are looked up and kept (a path opens, or makes, a store); an
        ablation that raises is then in `SweepResult.failed` instead of ending the sweep
    executor : who does the work; None does it here, see `tsprune.sweep.cluster` for another
    device : kind of device ("cpu", "cuda") the executor forecasts on; None if it is the model's
    memory : bytes that the records of a clean pass may hold; with less, more is computed again

    Where a batch does not fit into memory it is halved (see `Worker.outcome`).

    Raises TspruneError for a suite of which no window can be forecast.
    """
    with ExitStack() as opened:
        if isinstance(store, str | Path):
            store = opened.enter_context(Store(store))
        plan = make_plan(
            model,
            suite,
            ablations,
            batch_size=batch_size,
            keep=keep,
            prepared=prepared,
            reference=reference,
            store=store,
            device=device,
        )
        units = plan.units()
        count = _Count(sum(unit.forecasts for unit in units), progress)
        go_on = store is not None
        work = Work(model, plan, reference, frozenset(keep), replay, go_on, memory, count.add)
        collector = _Collector(model.name, plan, store, work.keep)
        if units:
            # closed at once, also by an exception: an executor may have processes to stop
            with closing((executor or here)(work)) as outcomes:
                for unit, outcome in outcomes:
                    collector.take(unit, outcome)
        return collector.result(model.context_length, suite)


@dataclasses.dataclass
class _Count:
    total: int
    progress: Progress | None
    done: int = 0

    def add(self, forecasts: int) -> None:
        for _ in range(forecasts):
            self.done += 1
            if self.progress is not None:
                self.progress(self.done, self.total)


# --- working on units ----------------------------------------------------------------------------


def here(work: Work) -> Generator[tuple[Unit, Outcome], None, None]:
    """The executor that works on one unit after the other in this process."""
    plan = work.plan
    units = plan.units()
    reference = work.reference or recorded_reference(work.model, units)
    worker = Worker(
        work.model, reference, work.keep, replay=work.replay, go_on=work.go_on, memory=work.memory
    )
    for unit in units:
        batch = plan.batches[unit.configuration][unit.batch]
        yield (
            unit,
            worker.outcome(plan.prepared[unit.configuration], batch, unit.ablations, work.on_forecasts),
        )


def recorded_reference(model: Forecaster, units: Iterable[Unit]) -> Reference | None:
    """The default reference for whatever of `units` needs one, None if nothing does."""
    every = dict.fromkeys(ablation for unit in units for ablation in unit.ablations)
    wanted = [component for one in every if one.mode != "zero" for component in one.components]
    return default_reference(model, wanted) if wanted else None


class Worker:
    """Forecasts and scores batches with one model.

    reference : for mean and resample ablations
    keep : ablations whose forecasts are kept
    go_on : whether an ablation that raises becomes part of the outcome
    memory : bytes that the records of a clean pass may hold
    """

    def __init__(
        self,
        model: Forecaster,
        reference: Reference | None,
        keep: frozenset[Ablation],
        *,
        replay: bool = True,
        go_on: bool = False,
        memory: int = MEMORY,
    ) -> None:
        self._model = model
        self._reference = reference
        self._keep = keep
        self._replay = Replay(model, memory) if replay else None
        self._go_on = go_on

    def outcome(
        self,
        prepared: Prepared,
        batch: Batch,
        ablations: Sequence[Ablation],
        on_forecasts: Callable[[int], None] = lambda count: None,
    ) -> Outcome:
        """Scores of one batch under every one of `ablations`.

        If memory runs out, the batch is done in halves, clean pass and ablations alike, which changes
        numbers by rounding only. Where it would change more (`resample` draws by place in the batch),
        TspruneError.
        """
        count = _Capped(len(ablations) + (CLEAN not in ablations), on_forecasts)

        def of_windows(chosen: Sequence[int]) -> Outcome:
            if len(chosen) < len(batch.rows) and any(one.mode == "resample" for one in ablations):
                raise TspruneError("out of memory; resample needs a smaller batch size")
            part = Batch(batch.rows[list(chosen)], tuple(batch.views[i] for i in chosen))
            return self._outcome(prepared, part, ablations, count.add)

        every = range(len(batch.rows))
        try:
            parts = [outcome for _, outcome in in_parts(of_windows, every)]
        except TspruneError as error:  # what an ablation raises is in the outcome by now, if it is to be
            self._raise_unless_recorded(error)
            parts = [Outcome({}, dict.fromkeys(ablations, _described(error)))]
        count.finish()
        return _together(ablations, parts)

    def _outcome(
        self,
        prepared: Prepared,
        batch: Batch,
        ablations: Sequence[Ablation],
        on_forecasts: Callable[[int], None],
    ) -> Outcome:
        horizon = prepared.configuration.horizon
        key = 0
        scores: dict[Ablation, CellScores] = {}
        failed: dict[Ablation, str] = {}
        start = time.perf_counter()
        try:
            try:
                clean = self._clean(batch, horizon, key)
            except Exception as error:  # whatever a model raises is recorded with the cells it costs
                self._raise_unless_recorded(error)
                return Outcome({}, dict.fromkeys(ablations, _described(error)))
            finite = np.asarray(np.isfinite(clean.quantiles).all(axis=(1, 2)))
            if CLEAN not in ablations:
                on_forecasts(1)
            for ablation in ablations:
                try:
                    forecast = clean if ablation == CLEAN else self._ablated(batch, horizon, ablation, key)
                    found = WindowScores(
                        prepared.statistics(forecast, batch.rows).select(finite),
                        spearman_distance(forecast.median, clean.median)[finite],
                    )
                except Exception as error:
                    self._raise_unless_recorded(error)
                    failed[ablation] = _described(error)
                else:
                    kept = None
                    if ablation in self._keep:
                        kept = Forecast(forecast.quantiles[finite], forecast.levels)
                    seconds = time.perf_counter() - start
                    scores[ablation] = CellScores(batch.rows[finite], found, kept, seconds)
                on_forecasts(1)
                start = time.perf_counter()
        finally:
            if self._replay is not None:
                self._replay.forget(key)
        return Outcome(scores, failed)

    def _raise_unless_recorded(self, error: Exception) -> None:
        # for want of memory the batch is tried again in halves, see `in_parts`
        if not self._go_on or _out_of_memory(error):
            raise error

    def _clean(self, batch: Batch, horizon: int, key: int) -> Forecast:
        if self._replay is None:
            return self._model.forecast(batch.contexts, horizon)
        with self._replay.record(key):
            return self._model.forecast(batch.contexts, horizon)

    def _ablated(self, batch: Batch, horizon: int, ablation: Ablation, key: int) -> Forecast:
        with applied(self._model, ablation, reference=self._reference):
            if self._replay is None:
                return self._model.forecast(batch.contexts, horizon)
            with self._replay.reuse(key, ablation.components):
                return self._model.forecast(batch.contexts, horizon)


@dataclasses.dataclass
class _Capped:
    """Counts the forecasts of a unit once, although some may be made again."""

    left: int
    on_forecasts: Callable[[int], None]

    def add(self, forecasts: int) -> None:
        counted = min(forecasts, self.left)
        self.left -= counted
        self.on_forecasts(counted)

    def finish(self) -> None:
        self.add(self.left)


def _together(ablations: Sequence[Ablation], parts: Sequence[Outcome]) -> Outcome:
    """The outcome of a batch from those of its parts: an ablation that failed on one has failed."""
    if len(parts) == 1:
        return parts[0]
    failed = {ablation: error for part in parts for ablation, error in part.failed.items()}
    scores = {
        ablation: CellScores.joined([part.scores[ablation] for part in parts])
        for ablation in ablations
        if ablation not in failed
    }
    return Outcome(scores, failed)


def _out_of_memory(error: Exception) -> bool:
    # torch has no exception of its own for the CPU's memory
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "not enough memory" in str(error)
    )


def _described(error: Exception) -> str:
    message = one_line(error)
    return message if isinstance(error, TspruneError) else f"{type(error).__name__}: {message}"


# --- collecting outcomes -------------------------------------------------------------------------


class _Collector:
    """Puts batches together to cells, and keeps them in the store as they come in."""

    def __init__(self, model: str, plan: SweepPlan, store: Store | None, keep: frozenset[Ablation]) -> None:
        self._model, self._plan, self._store, self._keep = model, plan, store, keep
        self._finished = dict(plan.finished)
        self._parts = {cell: dict(parts) for cell, parts in plan.parts.items()}
        self._failed: dict[Cell, str] = {}

    def take(self, unit: Unit, outcome: Outcome) -> None:
        done: list[Cell] = []
        waiting: list[Cell] = []
        for ablation, scores in outcome.scores.items():
            cell = ablation, unit.configuration
            self._parts.setdefault(cell, {})[unit.batch] = scores
            complete = len(self._parts[cell]) == len(self._plan.batches[unit.configuration])
            (done if complete else waiting).append(cell)
        for cell in done:
            parts = self._parts.pop(cell)
            self._finished[cell] = CellScores.joined([parts[batch] for batch in sorted(parts)])
        new = {(ablation, unit.configuration): error for ablation, error in outcome.failed.items()}
        for (ablation, number), error in new.items():
            what = " ".join(component.address for component in ablation.components) or "no ablation"
            name = self._plan.prepared[number].configuration.name
            _log.warning("failed: %s on %s, %s (%s): %s", self._model, name, what, ablation.mode, error)
        self._failed |= new
        if self._store is not None:
            entries = self._plan.entries
            self._store.add(
                done=[(entries[cell], self._finished[cell]) for cell in done],
                failed=[(entries[cell], error) for cell, error in new.items()],
                parts=[(entries[cell], unit.batch, self._parts[cell][unit.batch]) for cell in waiting],
            )

    def result(self, context_length: int, suite: Suite) -> SweepResult:
        names = [p.configuration.name for p in self._plan.prepared]
        rows = {
            name: self._finished[CLEAN, number].rows
            for number, name in enumerate(names)
            if (CLEAN, number) in self._finished and len(self._finished[CLEAN, number].rows)
        }
        skipped = self._skipped(context_length, suite)
        failed = {(ablation, names[number]): error for (ablation, number), error in self._failed.items()}
        if not rows:
            raise TspruneError(_nothing(suite.name, skipped, failed))
        scores: dict[Ablation, dict[str, WindowScores]] = {cell: {} for cell in self._plan.ablations}
        forecasts = {}
        for ablation, number in self._plan.cells():
            found = self._finished.get((ablation, number))
            if found is not None and names[number] in rows:
                scores[ablation][names[number]] = found.scores
                if found.forecast is not None and ablation in self._keep:
                    forecasts[ablation, names[number]] = found.forecast
        return SweepResult(rows, scores, forecasts, skipped, failed)

    def _skipped(self, context_length: int, suite: Suite) -> tuple[tuple[str, str], ...]:
        def left_out(number: int, c: Configuration) -> list[tuple[int, str]]:
            found = unforecastable(c, context_length)
            clean = self._finished.get((CLEAN, number))
            if clean is not None:
                answered = {*clean.rows.tolist(), *(row for row, _ in found)}
                lost = [row for row in range(len(c)) if row not in answered]
                found += [(row, "the forecast is not finite") for row in lost]
            return sorted(found)

        return suite.skipped + tuple(
            (f"{p.configuration.name}, window {row}", reason)
            for number, p in enumerate(self._plan.prepared)
            for row, reason in left_out(number, p.configuration)
        )


def _nothing(
    suite: str, skipped: Sequence[tuple[str, str]], failed: Mapping[tuple[Ablation, str], str]
) -> str:
    """Why a suite has no scores at all."""
    if failed:
        (_, name), reason = next(iter(failed.items()))
        return f"no window of {suite} could be forecast: {name}: {reason}"
    what, reason = skipped[-1]
    return f"no window of {suite} could be forecast: {what}: {reason}"
