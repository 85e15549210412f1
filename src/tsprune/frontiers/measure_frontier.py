"""`frontier`: time against loss of all that a model can be deployed as.

1. Weights are made: pruned to several shares of the estimated time along one path of removals, recovered if
   asked for, and given siblings.
2. Each runs by torch and exported; the original also in bfloat16 and compiled, where that works here.
3. Times are measured in turns with the original by torch. Losses are those on the half of the series that
   chose nothing, with intervals of paired differences (`tsprune.evaluation.changes`).
4. Everything is kept in a folder: a stopped run goes on, and what was measured can be deployed from there.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from tsprune.arguments import checked, each, number, shown
from tsprune.atomic import write_whole
from tsprune.choices import COMPILED, RUNTIMES
from tsprune.cost.latency import Timed, compare_latency, machine
from tsprune.data.pocket import pocket
from tsprune.data.split import split
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.evaluation import METRICS
from tsprune.files import as_json, output_folder, read_object
from tsprune.frontiers.frontier_points import FrontierWeights, Workshop, timed_steps
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

    Raises TspruneError for a folder of another frontier, for a plan of another model, if nothing could be
    measured, and as `plan` and `recover` do.
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
    whole = pocket() if suite is None else suite
    _, report = split(whole, seed=chosen.seed)
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
            original, place, shares, given, recover_steps, tuple(against), tuple(runtimes), whole, chosen
        )
        measure = _Measure(original, report, place, timing, chosen, progress)
        for weights in workshop.weights():
            measure.add(weights, workshop)
    if not measure.rows:
        raise TspruneError(f"no point of the frontier could be measured ({measure.skipped[0][1]})")
    skipped = (*whole.skipped, *measure.skipped)
    title = f"{original.name} on {report.name}: time and loss"
    return Frontier(
        marked(measure.rows, metric), title, skipped, metric=metric, machine=f"{machine()}, {_words(timing)}"
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
        self.rows: list[dict[str, Any]] = []
        self.skipped: list[tuple[str, str]] = []
        self._original, self._report, self._folder = original, report, folder
        self._timing, self._options, self._progress = timing, options, progress
        self._before: Baseline | None = None

    def add(self, weights: FrontierWeights, workshop: Workshop) -> None:
        """Measures every runtime of these weights, or lists why not."""
        try:
            model = weights.make()
        except TspruneError as error:
            self.skipped.append((weights.name, str(error)))
            return
        runtimes = list(workshop.made(weights, model))
        for place, (runtime, make) in enumerate(runtimes):
            self._progress(f"measuring {weights.name}", place, len(runtimes))
            try:
                self._point(weights, runtime, make)
            except TspruneError as error:
                self.skipped.append((label(weights.name, runtime), str(error)))
        self._progress(f"measuring {weights.name}", len(runtimes), len(runtimes))

    def _point(self, weights: FrontierWeights, runtime: str, make: Callable[[], Forecaster | Timed]) -> None:
        name = f"{weights.folder}-{runtime}.json"
        times, scores = self._folder / "times" / name, self._folder / "scores" / name
        if not (times.exists() and scores.exists()):
            model = make()
            self._keep_scores(scores, runtime, model)
            frame = compare_latency(self._original, model, **self._timing)
            after = frame.iloc[1::2].drop(columns=["model"])  # each second row is the other model's
            write_whole(times, as_json({"times": json.loads(after.to_json(orient="records"))}).encode())
        after_scores = Baseline.load(scores)
        self._before = self._before or after_scores  # the first point is the original by torch
        found = {row[0]: row for row in score_changes(self._before, after_scores, self._report, self._seed)}
        changes = dict(
            pair for name, metric in METRICS.items() for pair in _change(metric.key, found[name][3])
        )
        for row in read_object(times, "times of a forecast")["times"]:
            named = ("parameters", "batch", "ms", "time_ratio", "time_ratio_low", "time_ratio_high")
            self.rows.append(
                {"weights": weights.name, "runtime": runtime, **{key: row[key] for key in named}, **changes}
                | {"windows": int(found["windows"][2])}
            )

    def _keep_scores(self, path: Path, runtime: str, model: Forecaster | Timed) -> None:
        """Scores of a point; a compiled model, which compiles for every new shape, has the original's."""
        scored = self._original if runtime == COMPILED else model
        options = self._options.keywords()
        found = Baseline.measure(scored, self._report, measures=["scores"], **options)
        if reasons := [why for _, why in found.skipped]:
            raise TspruneError(reasons[0])
        found.save(path)

    @property
    def _seed(self) -> int:
        return self._options.seed


def _change(key: str, change: Estimate) -> list[tuple[str, float]]:
    """Columns of a change; without an interval if it is of one unit, but certain if nothing changed."""
    limits = (change.low, change.high)
    if change.value == 0 and math.isnan(change.low):
        limits = (0.0, 0.0)
    return [(f"{key}_change", change.value), (f"{key}_low", limits[0]), (f"{key}_high", limits[1])]
