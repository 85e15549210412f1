"""Collecting outcomes: batches are joined to cells and stored as they arrive."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from tsprune.data.suite import Configuration, Suite
from tsprune.errors import TspruneError
from tsprune.evaluation import unforecastable
from tsprune.hooks.ablation import Ablation
from tsprune.sweeps.cell_plan import Cell, SweepPlan, Unit
from tsprune.sweeps.store import Store
from tsprune.sweeps.sweep_result import CLEAN, CellScores, SweepResult, WindowScores
from tsprune.sweeps.worker import Outcome

_log = logging.getLogger(__name__)


class Collector:
    """Joins outcomes to a SweepResult, independent of their order and executor.

    model : its name, for the log
    store : keeps batches and cells at once; None keeps them in memory only
    keep : ablations whose forecasts are kept
    """

    def __init__(self, model: str, plan: SweepPlan, store: Store | None, keep: frozenset[Ablation]) -> None:
        self._model, self._plan, self._store, self._keep = model, plan, store, keep
        self._finished = dict(plan.finished)
        self._parts = {cell: dict(parts) for cell, parts in plan.parts.items()}
        self._failed: dict[Cell, str] = {}

    def take(self, unit: Unit, outcome: Outcome) -> None:
        """Adds the outcome of a unit; cells that are finished already stay as they are."""
        done: list[Cell] = []
        waiting: list[Cell] = []
        for cell, scores in outcome.scores.items():
            if cell in self._finished:
                continue
            parts = self._parts.setdefault(cell, {})
            parts[unit.batch] = scores
            (done if len(parts) == len(self._plan.batches_of[cell[1]]) else waiting).append(cell)
        for cell in done:
            parts = self._parts.pop(cell)
            self._finished[cell] = CellScores.joined([parts[batch] for batch in sorted(parts)])
        new = self._failures(unit, outcome)
        self._failed |= new
        if self._store is not None:
            entries = self._plan.entries
            self._store.add(
                done=[(entries[cell], self._finished[cell]) for cell in done],
                failed=[(entries[cell], error) for cell, error in new.items()],
                parts=[
                    (entries[cell], self._plan.part(cell, unit.batch), self._parts[cell][unit.batch])
                    for cell in waiting
                ],
            )

    def _failures(self, unit: Unit, outcome: Outcome) -> dict[Cell, str]:
        """The cells that fail with an ablation of this unit; each is logged."""
        numbers = self._plan.batches[unit.batch].members
        cells = {(ablation, n): error for ablation, error in outcome.failed.items() for n in numbers}
        failed = {cell: error for cell, error in cells.items() if cell not in self._finished}
        for (ablation, number), error in failed.items():
            what = " ".join(component.address for component in ablation.components) or "no ablation"
            name = self._plan.configurations[number].name
            _log.warning("failed: %s on %s, %s (%s): %s", self._model, name, what, ablation.mode, error)
        return failed

    def result(self, context_length: int, suite: Suite) -> SweepResult:
        """The result of the sweep; TspruneError if no window has scores."""
        names = [c.name for c in self._plan.configurations]
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
        seconds = {name: self._finished[CLEAN, names.index(name)].seconds for name in rows}
        return SweepResult(rows, scores, forecasts, skipped, failed, seconds)

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
            (f"{c.name}, window {row}", reason)
            for number, c in enumerate(self._plan.configurations)
            for row, reason in left_out(number, c)
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
