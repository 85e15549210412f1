"""Working on units: one batch of windows, forecast and scored under many ablations.

1. The clean pass of a batch is recorded; ablations reuse everything upstream of them
   (`tsprune.sweeps.variants`).
2. Only sums per window are kept of each forecast, so scores of any subset of windows (calibration and report,
   bootstrap draws) need no further forecast.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tsprune.errors import TspruneError, one_line
from tsprune.evaluation import Batch, Truth, centred_ranks, rank_distance
from tsprune.hooks.ablation import Ablation, applied
from tsprune.hooks.capture import Reference
from tsprune.memory import in_parts, out_of_memory
from tsprune.models.forecast import concatenated
from tsprune.models.forecaster import Forecast, Forecaster, NotFiniteError, with_gaps
from tsprune.replay import MOST
from tsprune.run_options import MEMORY
from tsprune.sweeps.cell_plan import Cell
from tsprune.sweeps.pace import Depths, deepest_first, reached
from tsprune.sweeps.sweep_result import CLEAN, CellScores, WindowScores
from tsprune.sweeps.variants import Variants

Done = Callable[[Sequence[Ablation]], None]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of one unit: scores of its windows by cell, and the errors of ablations that raised."""

    scores: Mapping[Cell, CellScores]
    failed: Mapping[Ablation, str]


class Worker:
    """Forecasts and scores batches with one model.

    reference : for mean and resample ablations
    keep : ablations whose forecasts are kept
    go_on : whether an ablation that raises becomes part of the outcome
    memory : bytes that the records of a clean pass may hold
    depths : of the model's components (`tsprune.sweeps.pace`), once the first clean pass has measured them
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
        self._variants = Variants(model, reference, memory) if replay else None
        self._go_on = go_on
        self.depths: Depths | None = None

    def outcome(
        self,
        batch: Batch,
        truth: Truth,
        ablations: Sequence[Ablation],
        on_forecasts: Done = lambda ablations: None,
    ) -> Outcome:
        """Scores of one batch under every one of `ablations`.

        on_forecasts : called with the ablations that were forecast since its last call

        If memory runs out, the batch is computed in halves, clean pass and ablations alike, which changes
        numbers by rounding only. `resample` draws by position in the batch, so it raises TspruneError then.
        """
        count = _Once(dict.fromkeys((CLEAN, *ablations)), on_forecasts)

        def of_windows(chosen: Sequence[NDArray[np.int64]]) -> Outcome:
            if len(chosen) == len(batch.together):
                return self._outcome(batch, truth, ablations, count.add)
            if any(one.mode == "resample" for one in ablations):
                raise TspruneError("out of memory; resample needs a smaller batch size")
            places = np.concatenate(chosen).tolist()
            return self._outcome(batch.select(places), truth.select(places), ablations, count.add)

        try:
            parts = [outcome for _, outcome in in_parts(of_windows, batch.together)]
        except TspruneError as error:  # errors of single ablations are in the outcome already
            self._raise_unless_recorded(error)
            parts = [Outcome({}, dict.fromkeys(ablations, _described(error)))]
        count.finish()
        return _together(parts)

    def _outcome(
        self,
        batch: Batch,
        truth: Truth,
        ablations: Sequence[Ablation],
        on_forecasts: Done,
    ) -> Outcome:
        scores: dict[Cell, CellScores] = {}
        failed: dict[Ablation, str] = {}
        start, first = time.perf_counter(), self.depths is None
        try:
            scorer = _Scorer(batch, truth, self._clean(batch))
        except Exception as error:  # any error of a model is recorded for all cells of the batch
            self._forget()
            self._raise_unless_recorded(error)
            return Outcome({}, dict.fromkeys(ablations, _described(error)))
        scored: dict[Ablation, WindowScores] = {}
        if first and self.depths:
            ablations = deepest_first(ablations, self.depths)
        if self._variants is not None:
            self._variants.expect(ablations)
        try:
            if CLEAN not in ablations:
                on_forecasts([CLEAN])
            for place, ablation in enumerate(ablations):
                if self._variants is not None and ablation != CLEAN:
                    made = self._variants.look_ahead(batch, ablations[place : place + MOST])
                    if made:
                        scored = dict(zip(made, scorer.scored([*made.values()]), strict=True))
                    start = time.perf_counter()
                try:
                    forecast = scorer.clean if ablation == CLEAN else self._ablated(batch, ablation)
                    scorer.require_finite(forecast, self._model.name)
                    whole = scored.pop(ablation, None) or scorer.scored([forecast])[0]
                    found = scorer.by_configuration(whole, forecast, keep=ablation in self._keep)
                except Exception as error:
                    if not isinstance(error, NotFiniteError):  # caused by this ablation alone
                        self._raise_unless_recorded(error)
                    failed[ablation] = _described(error)
                else:
                    seconds = (time.perf_counter() - start + self._share(ablation)) / len(batch)
                    for number, one in found.items():
                        took = seconds * len(batch.members[number])
                        scores[ablation, number] = dataclasses.replace(one, seconds=took)
                on_forecasts([ablation])
                start = time.perf_counter()
        finally:
            self._forget()
        return Outcome(scores, failed)

    def _raise_unless_recorded(self, error: Exception) -> None:
        # out of memory: the batch is tried again in halves, see `in_parts`
        if not self._go_on or out_of_memory(error):
            raise error

    def _clean(self, batch: Batch) -> Forecast:
        if self.depths is None:
            with reached(self._model) as self.depths:
                return self._clean(batch)
        if self._variants is None:
            return with_gaps(self._model, batch.contexts, batch.horizon)
        return self._variants.clean(batch)

    def _ablated(self, batch: Batch, ablation: Ablation) -> Forecast:
        if self._variants is not None:
            return self._variants.forecast(batch, ablation)
        with self._model.alone(), applied(self._model, ablation, reference=self._reference):
            return with_gaps(self._model, batch.contexts, batch.horizon)

    def _share(self, ablation: Ablation) -> float:
        return self._variants.share(ablation) if self._variants is not None else 0.0

    def _forget(self) -> None:
        if self._variants is not None:
            self._variants.forget()


class _Scorer:
    """Scores several forecasts of one batch at once; most of the time of one alone is call overhead.

    clean : the unablated forecast; windows where it is not finite are left out
    """

    def __init__(self, batch: Batch, truth: Truth, clean: Forecast) -> None:
        self._batch, self._truth = batch, truth
        self.clean = clean
        self._finite = clean.finite(batch.horizons)
        self._clean_ranks = self._ranks([clean])

    def require_finite(self, forecast: Forecast, model: str) -> None:
        """NotFiniteError if a window lost its finite forecast by the ablation."""
        lost = self._finite & ~forecast.finite(self._batch.horizons)
        if lost.any():
            of = f"{lost.sum()} of {self._finite.sum()} windows of a batch"
            raise NotFiniteError(f"{model}: the forecast is not finite for {of}")

    def scored(self, forecasts: Sequence[Forecast]) -> list[WindowScores]:
        """Scores of all windows of the batch under each of the forecasts."""
        count, size = len(forecasts), len(self._batch)
        statistics = self._truth.select([*range(size)] * count).statistics(concatenated(forecasts))
        distances = np.empty((count, size))
        for horizon, ranks in self._ranks(forecasts).items():
            places = self._batch.members_by_horizon[horizon]
            clean = np.tile(self._clean_ranks[horizon], (count, 1))
            distances[:, places] = rank_distance(ranks, clean).reshape(count, len(places))
        rows = np.arange(count * size).reshape(count, size)
        return [WindowScores(statistics.select(own), far) for own, far in zip(rows, distances, strict=True)]

    def by_configuration(
        self, found: WindowScores, forecast: Forecast, *, keep: bool
    ) -> dict[int, CellScores]:
        """The scores by number of the configuration, with the forecast if `keep`."""
        scores = {}
        for number, places in self._batch.members.items():
            chosen = places[self._finite[places]]
            own = WindowScores(found.statistics.select(chosen), found.spearman[chosen])
            kept = None
            if keep:
                horizon = int(self._batch.horizons[places[0]])
                kept = Forecast(forecast.quantiles[chosen, :, :horizon], forecast.levels)
            scores[number] = CellScores(self._batch.rows[chosen], own, kept, 0.0)
        return scores

    def _ranks(self, forecasts: Sequence[Forecast]) -> dict[int, NDArray[np.float64]]:
        """Horizon -> centred ranks [F * W, horizon] of the medians of its W windows, forecast by forecast."""
        medians = np.stack([forecast.median for forecast in forecasts])
        return {
            horizon: centred_ranks(medians[:, places, :horizon].reshape(-1, horizon))
            for horizon, places in self._batch.members_by_horizon.items()
        }


@dataclasses.dataclass
class _Once:
    """Reports each forecast of a unit once, even if halves of a batch repeat it."""

    left: dict[Ablation, None]
    on_forecasts: Done

    def add(self, ablations: Iterable[Ablation]) -> None:
        new = [ablation for ablation in ablations if ablation in self.left]
        for ablation in new:
            del self.left[ablation]
        if new:
            self.on_forecasts(new)

    def finish(self) -> None:
        self.add([*self.left])


def _together(parts: Sequence[Outcome]) -> Outcome:
    """The outcome of a batch from those of its parts; an ablation that failed on one part has failed."""
    if len(parts) == 1:
        return parts[0]
    failed = {ablation: error for part in parts for ablation, error in part.failed.items()}
    scores: dict[Cell, list[CellScores]] = {}
    for part in parts:
        for cell, found in part.scores.items():
            if cell[0] not in failed:
                scores.setdefault(cell, []).append(found)
    return Outcome({cell: CellScores.joined(found) for cell, found in scores.items()}, failed)


def _described(error: Exception) -> str:
    message = one_line(error)
    return message if isinstance(error, TspruneError) else f"{type(error).__name__}: {message}"
