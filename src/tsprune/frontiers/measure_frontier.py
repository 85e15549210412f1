"""`frontier`: time against loss of all that a model can be deployed as.

1. Weights are made: pruned to several shares of the estimated time along one path of removals, recovered if
   asked for, and given siblings.
2. Each runs by torch and exported; the original also in bfloat16 and compiled, where that works here.
3. Losses are those on the half of the series that chose nothing, with intervals of paired differences
   (`tsprune.evaluation.changes`).
4. Times are measured at the end, in turns with the original by torch, in several passes over all points:
   other work on the machine that comes or goes then touches all of them. One point is in memory at a time.
5. Everything is kept in a folder: a stopped run goes on, and what was measured can be deployed from there.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from tsprune.arguments import checked, each, number, shown, whole
from tsprune.atomic import write_whole
from tsprune.choices import COMPILED, RUNTIMES, TORCH
from tsprune.cost.latency import Timed, machine, timed_in_turns, with_limits
from tsprune.data.pocket import pocket
from tsprune.data.split import split
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.evaluation import METRICS
from tsprune.files import as_json, output_folder, read_object
from tsprune.frontiers.frontier_points import ORIGINAL, FrontierWeights, Workshop, timed_steps
from tsprune.frontiers.frontier_table import Frontier, label, marked
from tsprune.models import Forecaster, load
from tsprune.progress import Progress, showing
from tsprune.pruning.baseline_file import Baseline
from tsprune.pruning.gate import score_changes
from tsprune.pruning.plan import Plan
from tsprune.pruning.recovery import CHECKS
from tsprune.run_options import Options, RunOptions
from tsprune.statistics import Estimate
from tsprune.sweeps.key import checkpoint_digest

SAVINGS = (0.1, 0.2, 0.3, 0.5)
BATCHES = (1, 8, 64)
_CONTEXT = 512
_PASSES = 5  # over all points, each with its share of the rounds
_HISTORIES = 32  # of a step of recovery
_CONDITIONS = "conditions.json"
_OTHERS = {
    "seed": "another seed",
    "model": "another model",
    "windows": "other windows",
    "timing": "other batches or rounds",
    "machine": "another machine, number of threads or torch",
}


@checked
def frontier(
    model: Forecaster | str | Path,
    folder: str | Path,
    *,
    against: Sequence[str] = (),
    suite: Suite | None = None,
    savings: Sequence[float] = SAVINGS,
    plans: Sequence[Plan | str | Path] = (),
    recover_steps: int = 0,
    runtimes: Sequence[str] = RUNTIMES,
    batches: Sequence[int] = BATCHES,
    rounds: int = 20,
    metric: str = "MASE",
    **options: Unpack[Options],
) -> Frontier:
    """Measures time and loss of a model as it is, pruned, recovered and exported, and of its siblings.

    folder : keeps models, exports and measurements; if it exists, what is there is not measured again
    against : names of other models, such as the next smaller one of the family
    suite : None takes the embedded pocket suite; its calibration half chooses, its report half measures
    savings : shares of the estimated time of a forecast that pruned versions save
    plans : of further pruned versions, or their files
    recover_steps : of recovery of each pruned version; 0: none
    runtimes : of `tsprune.choices.RUNTIMES`; bfloat16 and compiled are of the original only, whose torch is
        always measured. Compiling takes a minute, each export half a minute
    batches, rounds : as in `compare_latency`
    metric : by which points are compared
    options : keywords of `tsprune.run_options.RunOptions`

    What cannot be made or measured here is in `skipped` with the reason.

    Raises TspruneError for a folder of another frontier, for a plan of another model, if the original cannot
    be measured, and as `plan` and `recover` do.
    """
    chosen = RunOptions(**options)
    original = load(model, device="cpu") if isinstance(model, str | Path) else model
    shares = each(savings, "savings", partial(number, least=0, most=1, open_ends=True))
    given = [one if isinstance(one, Plan) else Plan.load(one) for one in plans]
    for one in given:
        one.check(original)
    given = list({one.components: one for one in given}.values())
    METRICS.named(metric)
    if unknown := [name for name in runtimes if name not in RUNTIMES]:
        raise TspruneError(f"unknown runtime {shown(unknown[0])}; choose from: {', '.join(RUNTIMES)}")
    whole(rounds, "rounds", least=2)
    data = pocket() if suite is None else suite
    _, report = split(data, seed=chosen.seed)
    report.require_windows()
    place = output_folder(folder)
    timing = {
        "batches": tuple(batches),
        "context": min(_CONTEXT, original.context_length),
        "horizon": timed_steps(original),
        "rounds": rounds,
    }
    stated = {
        "seed": chosen.seed,
        "model": checkpoint_digest(original),
        "windows": report.fingerprint,
        "timing": timing,
        "machine": machine(),
    }
    _require_conditions(place / _CONDITIONS, stated)
    with showing(chosen.progress) as progress:
        chosen = chosen.replace(progress=progress, store=None)
        workshop = Workshop(
            original, place, shares, given, recover_steps, tuple(against), tuple(runtimes), data, chosen
        )
        measure = _Measure(original, report, place, timing, chosen, progress)
        for weights in workshop.weights():
            measure.score(weights, workshop)
        measure.time()
        rows = list(measure.rows())
    skipped = (*data.skipped, *measure.skipped)
    title = f"{original.name} on {report.name}: time and loss"
    return Frontier(
        marked(rows, metric), title, skipped, metric=metric, machine=f"{machine()}, {_words(timing)}"
    )


def recovery_seconds(model: Forecaster, suite: Suite, steps: int) -> float:
    """A rough estimate of the seconds of one recovery: a step is four forecasts' worth of work."""
    length = min(_CONTEXT, model.context_length)
    series = list(np.random.default_rng(0).standard_normal((_HISTORIES, length)).cumsum(1).astype(np.float32))
    model.forecast(series, model.prefix_steps)
    start = time.perf_counter()
    model.forecast(series, model.prefix_steps)
    once = time.perf_counter() - start
    return once * (4 * steps + CHECKS * len(split(suite)[0]) / _HISTORIES)


def _words(timing: Mapping[str, object]) -> str:
    return f"context {timing['context']}, horizon {timing['horizon']}, {timing['rounds']} rounds"


def _require_conditions(path: Path, stated: Mapping[str, Any]) -> None:
    """Writes the conditions of a new frontier; TspruneError if there are others."""
    now = json.loads(as_json(stated))
    if not path.exists():
        write_whole(path, as_json(now).encode())
        return
    before = read_object(path, "record of a frontier's conditions")
    different = [name for name in now if before.get(name) != now[name]]
    if different:
        raise TspruneError(
            f"{path.parent} holds a frontier of {_OTHERS[different[0]]}; name a new folder, or measure alike"
        )


@dataclasses.dataclass(frozen=True)
class _Point:
    """One way to run one version; its scores and times are in files of the folder."""

    weights: str
    runtime: str
    make: Callable[[], Forecaster | Timed]
    scores: Path
    times: Path

    @property
    def label(self) -> str:
        return label(self.weights, self.runtime)

    def timed(self) -> dict[str, Any]:
        """{"parameters": count, "seconds": {batch: [original's, its own] of every round so far}}."""
        record = read_object(self.times, "times of a forecast") if self.times.exists() else {}
        return {"seconds": {}, **record}


class _Measure:
    """Rows of the table, from measurements that are kept in the folder."""

    def __init__(
        self,
        original: Forecaster,
        report: Suite,
        folder: Path,
        timing: Mapping[str, Any],
        options: RunOptions,
        progress: Progress,
    ) -> None:
        self.skipped: list[tuple[str, str]] = []
        self._points: list[_Point] = []
        self._changes: dict[Path, dict[str, Any]] = {}  # of scores, by their file
        self._before: Baseline | None = None  # the first point is the original by torch
        self._original, self._report, self._folder = original, report, folder
        self._timing, self._options, self._progress = timing, options, progress

    def score(self, weights: FrontierWeights, workshop: Workshop) -> None:
        """Makes and scores every runtime of these weights, or lists why not."""
        try:
            weights.make()
        except TspruneError as error:
            self.skipped.append((weights.name, str(error)))
            return
        runtimes = list(workshop.made(weights))
        for place, (runtime, make) in enumerate(runtimes):
            self._progress(f"measuring {weights.name}", place, len(runtimes))
            name = f"{weights.folder}-{runtime}.json"
            point = _Point(
                weights.name, runtime, make, self._folder / "scores" / name, self._folder / "times" / name
            )
            with self._skipping(point):
                if not point.scores.exists():
                    self._keep_scores(point.scores, runtime, make())
                self._changes[point.scores] = self._changed(Baseline.load(point.scores))
                self._points.append(point)
        self._progress(f"measuring {weights.name}", len(runtimes), len(runtimes))

    def time(self) -> None:
        """Times all points; the rounds that a stopped run has taken are not taken again."""
        shares = [len(part) for part in np.array_split(range(self._timing["rounds"]), _PASSES)]
        ends, work = np.cumsum(shares), _PASSES * len(self._points)
        done = 0
        for end in ends.tolist():
            for point in list(self._points):
                with self._skipping(point):
                    self._take(point, end)
                done += 1
                self._progress("timing all versions in turns", done, work)

    @contextmanager
    def _skipping(self, point: _Point) -> Iterator[None]:
        """A point that fails leaves the table, with its reason; that with which all are compared raises."""
        try:
            yield
        except TspruneError as error:
            if point.label == label(ORIGINAL, TORCH):
                raise TspruneError(f"no point of the frontier could be measured ({error})") from None
            self.skipped.append((point.label, str(error)))
            self._points = [one for one in self._points if one is not point]

    def _take(self, point: _Point, until: int) -> None:
        """Times a point until it has so many rounds at every batch."""
        record = point.timed()
        taken: dict[str, list[list[float]]] = record["seconds"]
        missing = {
            batch: rounds
            for batch in self._timing["batches"]
            if (rounds := until - len(taken.get(str(batch), [[]])[0])) > 0
        }
        if not missing:
            return
        model, steps = point.make(), {key: self._timing[key] for key in ("context", "horizon")}
        for batch, rounds in missing.items():
            seconds = timed_in_turns(self._original, model, batch=batch, rounds=rounds, **steps)
            before = taken.get(str(batch), [[], []])
            taken[str(batch)] = [[*old, *new] for old, new in zip(before, seconds.tolist(), strict=True)]
        record["parameters"] = model.parameter_count
        write_whole(point.times, as_json(record).encode())

    def rows(self) -> Iterator[dict[str, Any]]:
        """Rows of `FRONTIER`, without its last column."""
        for point in self._points:
            times = point.timed()
            for batch in self._timing["batches"]:
                first, own = np.asarray(times["seconds"][str(batch)])
                yield (
                    {"weights": point.weights, "runtime": point.runtime, "batch": batch}
                    | {"parameters": times["parameters"], "ms": float(np.median(own * 1000))}
                    | with_limits("time_ratio", own / first)
                    | self._changes[point.scores]
                )

    def _changed(self, after: Baseline) -> dict[str, Any]:
        """The columns of changes from the original by torch."""
        self._before = self._before or after
        found = {row[0]: row for row in score_changes(self._before, after, self._report, self._options.seed)}
        changes = (_change(metric.key, found[name][3]) for name, metric in METRICS.items())
        return {"windows": int(found["windows"][2])} | dict(pair for part in changes for pair in part)

    def _keep_scores(self, path: Path, runtime: str, model: Forecaster | Timed) -> None:
        """Scores of a point; a compiled model, which compiles for every new shape, has the original's."""
        scored = self._original if runtime == COMPILED else model
        options = self._options.keywords()
        found = Baseline.measure(scored, self._report, measures=["scores"], **options)
        if reasons := [why for _, why in found.skipped]:
            raise TspruneError(reasons[0])
        found.save(path)


def _change(key: str, change: Estimate) -> list[tuple[str, float]]:
    """Columns of a change; without an interval if it is of one unit, but certain if nothing changed."""
    limits = (change.low, change.high)
    if change.value == 0 and math.isnan(change.low):
        limits = (0.0, 0.0)
    return [(f"{key}_change", change.value), (f"{key}_low", limits[0]), (f"{key}_high", limits[1])]
