"""A study within a budget of time: what is measured first, and on how many windows.

1. A few forecasts are timed (`tsprune.sweeps.cost_estimate`). Every later estimate is corrected by how long
   the work so far took, against what was expected of it.
2. Round 1 has two windows of every configuration (`tsprune.data.stratified`), one of each side of the
   calibration split. The experiments take their turn by importance; heads@Xpp is bisected. Of an experiment
   that does not fit, the leading ablations are measured, as many as fit.
3. Each further round measures all of that on two more windows of every configuration, while time is left.
   Points of heads@Xpp whose interval excludes the loss are decided and drop out of this race, so that the
   others get more windows.
4. The explanation gets what remains, with as many windows as fit.

A round is a suite of its own, so a store finds it again under a larger budget, which goes on from there.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from tsprune.data.stratified import rounds
from tsprune.data.suite import Suite
from tsprune.evaluation import Batch, WindowStatistics
from tsprune.hooks.ablation import Ablation
from tsprune.models.forecast import Forecast
from tsprune.models.forecaster import Forecaster
from tsprune.progress import Progress, silent
from tsprune.pruning.heads_at import Prefix, Prefixes
from tsprune.run_options import RunOptions
from tsprune.studies.experiments import run_completely
from tsprune.sweeps.cell_plan import SweepPlan, make_plan
from tsprune.sweeps.cost_estimate import LIMIT, SweepRates, measured_rates
from tsprune.sweeps.samples import change_sample
from tsprune.sweeps.sweep_result import CLEAN, Masks, SweepResult, WindowScores

PER_ROUND = 2  # windows of each configuration
NOT_MEASURED = "not measured within the budget"
_SURE = 0.99  # level of the intervals by which points are decided: they are looked at after every round
_PROBES = 0.06  # share of the budget for timed forecasts
_END, _SHARE_OF_END = 3.0, 0.03  # seconds, and share of the budget, for intervals, tables and the report


class Budget:
    """A clock that runs from its creation on."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds, self._clock = seconds, clock
        self._end = clock() + seconds - min(0.3 * seconds, _END + _SHARE_OF_END * seconds)
        self._expected = self._took = self._busy = 0.0

    @property
    def left(self) -> float:
        """Seconds that are left for measurements."""
        return self._end - self._clock()

    @property
    def correction(self) -> float:
        """The time that work took, relative to what was expected of it."""
        return self._took / self._expected if self._expected else 1.0

    @property
    def contention(self) -> float:
        """Seconds that passed for each one of this process, at least 1: other work shares the machine."""
        return max(1.0, self._took / self._busy) if self._busy else 1.0

    def timed(self, expected: float, work: Callable[[], SweepResult]) -> SweepResult:
        """The result of `work`, whose time is remembered."""
        start, busy = self._clock(), time.process_time()
        result = work()
        if expected:  # a store has the rest
            self._took += self._clock() - start
            self._busy += time.process_time() - busy
            self._expected += expected
        return result


@dataclasses.dataclass
class _Round:
    """One round: its suite, the rows of its windows in the whole suite, and what was measured on them."""

    suite: Suite
    rows: Mapping[str, NDArray[np.int64]]
    results: list[SweepResult] = dataclasses.field(default_factory=list)

    def scores(self, ablation: Ablation, name: str) -> WindowScores | None:
        """Scores of an ablation on the round's windows of a configuration; None if it was not measured."""
        found = (one.scores[ablation][name] for one in self.results if name in one.scores.get(ablation, {}))
        return next(found, None)


class BudgetedSweeps:
    """Ablations of a model on one round of windows after the other.

    keep : ablations whose forecasts are kept, and `CLEAN`
    """

    def __init__(
        self,
        model: Forecaster,
        suite: Suite,
        budget: Budget,
        options: RunOptions,
        progress: Progress = silent,
    ) -> None:
        self._model, self.suite, self.budget = model, suite, budget
        self._options, self._progress, self.seed = options, progress, options.seed
        every = rounds(suite, PER_ROUND, seed=options.seed)
        self._coming: Iterator[_Round] = (
            _Round(part, dict(zip((c.name for c in part.configurations), rows, strict=True)))
            for part, rows in every
        )
        self.done = [next(self._coming)]
        self.keep: Collection[Ablation] = ()
        self.measured: dict[Ablation, None] = {CLEAN: None}
        self.decided: dict[Ablation, None] = {}
        self._wanted: dict[Ablation, None] = {}
        self.rates: SweepRates | None = None

    def expect(self, ablations: Sequence[Ablation]) -> None:
        """Times a few forecasts, some of these ablations among them."""
        plan = self._plan(self.done[0].suite, ablations)
        limit = min(LIMIT, _PROBES * self.budget.seconds)
        self.rates = measured_rates(self._model, plan, plan.units(), memory=self._options.memory, limit=limit)

    def seconds(self, suite: Suite, ablations: Sequence[Ablation]) -> float:
        """Expected seconds of what is left of a sweep, before any correction."""
        return self._expected(self._left(suite, ablations), ablations)

    def pass_seconds(self, suite: Suite) -> float:
        """Expected seconds of an unablated pass over a suite, before any correction."""
        assert self.rates is not None, "`expect` times forecasts first"
        how = self._options
        plan = make_plan(self._model, suite, [], batch_size=how.batch_size, memory=how.memory)
        return self.rates.forward(plan.batches)

    def _left(self, suite: Suite, ablations: Sequence[Ablation]) -> list[tuple[Batch, tuple[Ablation, ...]]]:
        """Batches of a sweep, each with the ablations that no store has."""
        plan = self._plan(suite, ablations)
        return [(plan.batches[unit.batch], unit.ablations) for unit in plan.units()]

    def _expected(
        self, left: Sequence[tuple[Batch, tuple[Ablation, ...]]], ablations: Collection[Ablation]
    ) -> float:
        assert self.rates is not None, "`expect` times forecasts first"
        some = {CLEAN, *ablations}
        chosen = [(batch, [one for one in wanted if one in some]) for batch, wanted in left]
        return sum(self.rates.seconds(batch, wanted) for batch, wanted in chosen if wanted)

    def want(self, ablations: Sequence[Ablation]) -> None:
        """Ablations that a result names as failed if they are not measured."""
        self._wanted |= dict.fromkeys(ablations)

    def first(self, ablations: Sequence[Ablation], stage: str) -> None:
        """Measures as many of `ablations` as fit on the first round, the leading ones."""
        self.want(ablations)
        new = [one for one in dict.fromkeys(ablations) if one not in self.measured]
        fitting = self._fitting(self.done[0].suite, new)
        if fitting or not self.done[0].results:
            self._run(self.done[0], fitting, stage)
            self.measured |= dict.fromkeys(fitting)

    def further(
        self, reserved: float, stage: str, decided: Callable[[], Collection[Ablation]] = tuple
    ) -> None:
        """Measures everything again on more windows, while that leaves `reserved` seconds.

        decided : called before every round; these ablations wait until the others have all windows
        """
        for coming in self._coming:
            self.decided |= dict.fromkeys(decided())
            every = [one for one in self.measured if one != CLEAN and one not in self.decided]
            expected = self.seconds(coming.suite, every) * self.budget.correction
            if expected > self.budget.left - reserved:
                return
            self._run(coming, every, stage)
            self.done.append(coming)
        for one in self.done:
            waiting = [each for each in self.decided if not any(each in x.scores for x in one.results)]
            expected = self.seconds(one.suite, waiting) * self.budget.correction if waiting else 0.0
            if waiting and expected <= self.budget.left - reserved:
                self._run(one, waiting, stage)

    def everywhere(self, ablation: Ablation, stage: str) -> SweepResult:
        """Measures one more ablation on all rounds that are done."""
        for one in self.done:
            self._run(one, [ablation], stage)
        self.want([ablation])
        self.measured |= {ablation: None}
        return self.result()

    def _plan(self, suite: Suite, ablations: Sequence[Ablation]) -> SweepPlan:
        how = self._options
        return make_plan(
            self._model,
            suite,
            ablations,
            batch_size=how.batch_size,
            memory=how.memory,
            keep=self.keep,
            store=how.store,
        )

    def _fitting(self, suite: Suite, ablations: list[Ablation]) -> list[Ablation]:
        """The leading ones of `ablations` that the time allows."""
        left = self._left(suite, ablations)
        low, high = 0, len(ablations)
        while low < high:
            middle = (low + high + 1) // 2
            expected = self._expected(left, ablations[:middle]) * self.budget.correction
            low, high = (middle, high) if expected <= self.budget.left else (low, middle - 1)
        return ablations[:low]

    def _run(self, one: _Round, ablations: Sequence[Ablation], stage: str) -> None:
        expected = self.seconds(one.suite, ablations)
        found = self.budget.timed(
            expected,
            lambda: run_completely(
                self._model,
                one.suite,
                ablations,
                self._options,
                keep=[CLEAN, *(cell for cell in self.keep if cell in ablations)],
                progress=self._progress,
                stage=stage,
            ),
        )
        one.results.append(found)

    def result(self, only: Sequence[Ablation] | None = None) -> SweepResult:
        """Everything measured (or `only` these), as a sweep of the whole suite; all else is in `failed`."""
        some = self.measured if only is None else dict.fromkeys((CLEAN, *only))
        names = [c.name for c in self.suite.configurations]
        rows = {name: places for name in names if len(places := self._rows(name))}
        scores = {one: {name: self._scores(one, name) for name in rows} for one in some}
        forecasts = {
            (one, name): found
            for one in (CLEAN, *self.keep)
            for name in rows
            if one in some and (found := self._forecast(one, name)) is not None
        }
        missing = [one for one in self._wanted if one not in some]
        scores |= {one: {} for one in missing}
        failed = {(one, name): NOT_MEASURED for one in missing for name in rows}
        seconds = {name: sum(part.results[0].seconds.get(name, 0.0) for part in self.done) for name in rows}
        skipped = dict.fromkeys(
            (*self.suite.skipped, *(x for part in self.done for x in part.results[0].skipped))
        )
        raced = [one for one in self.decided if one in some]
        known = {one: {name: self._places(one, name) for name in rows} for one in raced}
        partial = {one: masks for one, masks in known.items() if not all(map(np.all, masks.values()))}
        return SweepResult(rows, scores, forecasts, tuple(skipped), failed, seconds, partial)

    def _parts(self, name: str) -> list[_Round]:
        return [one for one in self.done if name in one.results[0].rows]

    def _rows(self, name: str) -> NDArray[np.int64]:
        """Rows of the windows with forecasts in the whole suite, in order of the rounds."""
        parts = [one.rows[name][one.results[0].rows[name]] for one in self._parts(name)]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def _places(self, ablation: Ablation, name: str) -> NDArray[np.bool_]:
        """The windows of `_rows` that an ablation was measured on."""
        parts = [(one, len(one.results[0].rows[name])) for one in self._parts(name)]
        known = [np.full(count, one.scores(ablation, name) is not None) for one, count in parts]
        return np.concatenate([np.zeros(0, np.bool_), *known])

    def _scores(self, ablation: Ablation, name: str) -> WindowScores:
        """Scores of an ablation on the windows of `_rows`; the unablated ones where it was not measured."""
        parts = [(one.scores(ablation, name), one.scores(CLEAN, name)) for one in self._parts(name)]
        found = [clean if own is None else own for own, clean in parts]
        known = [one for one in found if one is not None]
        return WindowScores(
            WindowStatistics.concatenate([one.statistics for one in known]),
            np.concatenate([one.spearman for one in known]),
        )

    def _forecast(self, ablation: Ablation, name: str) -> Forecast | None:
        found = [
            next(
                (one.forecasts[ablation, name] for one in part.results if (ablation, name) in one.forecasts),
                None,
            )
            for part in self._parts(name)
        ]
        known = [one for one in found if one is not None]
        if len(known) < len(found) or not known:
            return None
        return Forecast(np.concatenate([one.quantiles for one in known]), known[0].levels)


# --- heads@Xpp ------------------------------------------------------------------------------------


def bisect_heads_at(
    sweeps: BudgetedSweeps, prefixes: Prefixes, max_loss: float, calibration: Masks, stage: str
) -> list[str]:
    """Measures the prefixes that decide heads@Xpp; names the sublayers whose curves are not monotone.

    The largest count of heads whose removal costs at most `max_loss` lies between the largest one known to
    cost less and the smallest one known to cost more, for each order and both selections of windows. That
    holds where a curve rises. Where it falls beyond `max_loss` by more than its interval, all counts are
    measured.
    """
    curves: dict[_Key, dict[int, Ablation]] = {}
    for prefix, ablation in prefixes.items():
        curves.setdefault(_curve(prefix), {})[prefix.count] = ablation
    known = [_Changes(sweeps), _Changes(sweeps, calibration)]
    while True:
        wanted = [
            curve[count]
            for curve in curves.values()
            for changes in known
            if (count := next_count(changes.of(curve), max(curve), max_loss)) is not None
        ]
        before = len(sweeps.measured)
        sweeps.first(list(dict.fromkeys(wanted)), stage)
        if len(sweeps.measured) == before:
            break
    uneven = {key for changes in known for key in changes.falling(curves, max_loss)}
    every = [ablation for key in curves if key in uneven for ablation in curves[key].values()]
    sweeps.first(every, stage)
    return [".".join(map(str, key[:3])) for key in curves if key in uneven]


def decided_points(
    sweeps: BudgetedSweeps, points: Collection[Ablation], max_loss: float, calibration: Masks
) -> list[Ablation]:
    """Those of `points` whose change is surely within `max_loss`, or surely beyond, by both selections.

    A single configuration decides nothing: its units are the series, which further rounds add.
    """
    some = [one for one in points if one in sweeps.measured]
    if not some or len(sweeps.suite.configurations) < 2:
        return []
    result, sure = sweeps.result(some), np.ones(len(some), dtype=np.bool_)
    for masks in (None, calibration):
        sample = change_sample(result, sweeps.suite, some, "MASE", masks=masks)
        found = sample.estimates(level=_SURE, seed=sweeps.seed)
        sure &= (found.high < max_loss) | (found.low > max_loss)
    return [one for one, is_sure in zip(some, sure, strict=True) if is_sure]


_Key = tuple[object, ...]  # of a curve: stack, layer, role, order


def _curve(prefix: Prefix) -> _Key:
    return prefix.stack, prefix.layer, prefix.attention, prefix.order


class _Changes:
    """Changes of MASE under the ablations that are measured on the first round, each computed once."""

    def __init__(self, sweeps: BudgetedSweeps, masks: Masks | None = None) -> None:
        self._sweeps, self._masks = sweeps, masks
        self._known: dict[Ablation, float] = {}

    def of(self, curve: Mapping[int, Ablation]) -> dict[int, float]:
        """Number of heads -> change, where it is measured, ascending; no heads cost nothing."""
        measured = {n: one for n, one in sorted(curve.items()) if one in self._sweeps.measured}
        if new := [one for one in measured.values() if one not in self._known]:
            result = self._sweeps.result(new)
            self._known |= {one: result.change(one, self._masks)["MASE"] for one in new}
        return {0: 0.0} | {n: self._known[one] for n, one in measured.items()}

    def falling(self, curves: Mapping[_Key, Mapping[int, Ablation]], max_loss: float) -> set[_Key]:
        """The curves of which a count beyond `max_loss` is known to cost more than a larger one."""
        measured = {key: self.of(curve) for key, curve in curves.items()}
        pairs = [
            (key, curves[key][fewer], curves[key][more])
            for key, changes in measured.items()
            for fewer, more in combinations(changes, 2)
            if changes[fewer] > max(max_loss, changes[more])
        ]
        if not pairs:
            return set()
        ends = [one for _, one, _ in pairs], [other for _, _, other in pairs]
        result, suite, seed = self._sweeps.result(ends[0] + ends[1]), self._sweeps.suite, self._sweeps.seed
        worse, better = (change_sample(result, suite, one, "MASE", masks=self._masks) for one in ends)
        sure = worse.minus(better).estimates(seed=seed).low > 0
        return {key for (key, *_), falls in zip(pairs, sure, strict=True) if falls}


def next_count(known: Mapping[int, float], heads: int, max_loss: float) -> int | None:
    """The next number of heads to measure; None if the largest that may go is known.

    known : number of heads -> change, 0 heads among them

    >>> next_count({0: 0.0, 4: 0.002, 6: 0.3}, 8, max_loss=0.01)
    5
    """
    low = max(n for n, change in known.items() if change <= max_loss)
    high = min((n for n in known if n > low), default=heads + 1)
    return (low + high) // 2 if high - low > 1 else None
