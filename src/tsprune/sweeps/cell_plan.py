"""The plan of a sweep: all cells, and the work that is left, are known before the first forecast.

A cell is one ablation (with its seed) of one checkpoint on one configuration. A unit of work is one batch of
windows, of one configuration or several, with all ablations whose cells still need it, so the clean pass of a
batch runs once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property

from tsprune.arguments import checked
from tsprune.data.suite import Configuration, Suite
from tsprune.evaluation import Batch, Truth, shared_batches, truth_of
from tsprune.evaluation.batching import reading_of
from tsprune.hooks.ablation import Ablation
from tsprune.hooks.capture import Reference
from tsprune.models.forecaster import Forecaster
from tsprune.models.placement import processor
from tsprune.replay import fitting_windows
from tsprune.run_options import MEMORY
from tsprune.sweeps.key import (
    CellKey,
    batches_digest,
    checkpoint_digest,
    protocol,
    reference_digest,
    windows_fingerprint,
)
from tsprune.sweeps.store import Entry, Store
from tsprune.sweeps.sweep_result import CLEAN, CellScores

Cell = tuple[Ablation, int]  # an ablation on the configuration of that number


@dataclasses.dataclass(frozen=True)
class Unit:
    """One batch of windows under some ablations.

    batch : its number in the plan
    """

    batch: int
    ablations: tuple[Ablation, ...]

    @property
    def forecasts(self) -> int:
        """Number of forecasts; the clean one always runs, as the others are compared with it."""
        return len(self.ablations) + (CLEAN not in self.ablations)


@dataclasses.dataclass(frozen=True)
class SweepPlan:
    """The cells of a sweep, and those that a store already holds.

    ablations : every different one, `CLEAN` first
    configurations : of the suite
    batches : of the windows of all of them, which refer to their configuration by its number
    checkpoint : digest of the model, "" without a store
    entries : the store's name of each cell; empty without a store
    finished : cells that the store holds
    parts : number of the batch -> its scores, for stored batches of unfinished cells
    """

    ablations: tuple[Ablation, ...]
    configurations: tuple[Configuration, ...]
    batches: tuple[Batch, ...]
    checkpoint: str
    entries: Mapping[Cell, Entry]
    finished: Mapping[Cell, CellScores]
    parts: Mapping[Cell, Mapping[int, CellScores]]

    @cached_property
    def batches_of(self) -> Mapping[int, tuple[int, ...]]:
        """Number of a configuration that can be forecast -> numbers of the batches that hold its windows."""
        found: dict[int, list[int]] = {}
        for place, batch in enumerate(self.batches):
            for number in batch.members:
                found.setdefault(number, []).append(place)
        return {number: tuple(found[number]) for number in sorted(found)}

    def cells(self) -> Iterator[Cell]:
        """Every cell; a configuration without a window that can be forecast has none."""
        for number in self.batches_of:
            for ablation in self.ablations:
                yield ablation, number

    @property
    def missing(self) -> list[Cell]:
        """The cells that are not finished."""
        return [cell for cell in self.cells() if cell not in self.finished]

    def units(self) -> list[Unit]:
        """The work that is left, batch by batch."""
        missing = set(self.missing)
        units = []
        for place, batch in enumerate(self.batches):

            def lacks(cell: Cell, place: int = place) -> bool:
                return cell in missing and place not in self.parts.get(cell, {})

            wanted = tuple(
                ablation
                for ablation in self.ablations
                if any(lacks((ablation, number)) for number in batch.members)
            )
            if wanted:
                units.append(Unit(place, wanted))
        return units

    def ablations_of(self, units: Iterable[Unit]) -> list[Ablation]:
        """Every ablation that one of `units` needs, in the plan's order."""
        wanted = {ablation for unit in units for ablation in unit.ablations}
        return [ablation for ablation in self.ablations if ablation in wanted]

    def part(self, cell: Cell, batch: int) -> int:
        """The store's number of a batch: its position among those of the cell's configuration."""
        return self.batches_of[cell[1]].index(batch)

    def truth(self, unit: Unit) -> Truth:
        """Targets and scales that the forecasts of a unit are scored with."""
        return truth_of(self.configurations, self.batches[unit.batch])


@checked
def make_plan(
    model: Forecaster,
    suite: Suite,
    ablations: Sequence[Ablation],
    *,
    batch_size: int,
    memory: int = MEMORY,
    keep: Collection[Ablation] = (),
    reference: Reference | None = None,
    store: Store | None = None,
    device: str | None = None,
) -> SweepPlan:
    """The plan of `tsprune.sweeps.run` with these arguments.

    batch_size, memory : a batch has at most so many windows, and fewer if `memory` bytes would not hold their
        whole record (see `tsprune.replay.fitting_windows`)
    device : kind of device that forecasts; None: the model's

    Raises TspruneError for a suite without windows or a store that cannot be read.
    """
    suite.require_windows()
    cells = tuple(dict.fromkeys((CLEAN, *ablations)))
    configurations = suite.configurations
    work = shared_batches(
        configurations,
        context_length=model.context_length,
        batch_size=batch_size,
        prefix_steps=model.prefix_steps,
        fitting=lambda contexts, horizon: fitting_windows(model, contexts, horizon, batch_size, memory),
        reading=reading_of(model),
    )
    plan = SweepPlan(cells, configurations, tuple(work), "", {}, {}, {})
    if store is None:
        return plan
    checkpoint = checkpoint_digest(model)
    kind = device or processor(model.device)
    entries = _entries(plan, model, checkpoint, batch_size=batch_size, device=kind, reference=reference)
    finished: dict[Cell, CellScores] = {}
    parts: dict[Cell, dict[int, CellScores]] = {}
    for cell, entry in entries.items():
        numbers, windows = plan.batches_of[cell[1]], len(configurations[cell[1]])
        found = store.finished(entry.key, kept=cell[0] in keep, windows=windows)
        if found is not None:
            finished[cell] = found
        elif done := store.parts(entry.key, kept=cell[0] in keep, windows=windows, batches=len(numbers)):
            parts[cell] = {numbers[part]: scores for part, scores in done.items()}
    return dataclasses.replace(plan, checkpoint=checkpoint, entries=entries, finished=finished, parts=parts)


def _entries(
    plan: SweepPlan,
    model: Forecaster,
    checkpoint: str,
    *,
    batch_size: int,
    device: str,
    reference: Reference | None,
) -> dict[Cell, Entry]:
    zero = all(ablation.mode == "zero" for ablation in plan.ablations)
    values = "" if zero else reference_digest(model, reference)
    configurations = plan.configurations
    windows = [windows_fingerprint(c) for c in configurations]
    company = [batches_digest(number, plan.batches) for number in range(len(configurations))]
    how = [protocol(model, c, batch_size=batch_size, device=device) for c in configurations]

    def entry(ablation: Ablation, number: int) -> Entry:
        c = configurations[number]
        known = windows[number], company[number], how[number]
        key = CellKey(checkpoint, ablation, c.name, *known, values)
        return Entry(key, model.name, c.domain, c.num_variates)

    return {(ablation, number): entry(ablation, number) for ablation, number in plan.cells()}
