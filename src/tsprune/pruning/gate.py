"""A gate for checkpoints: is one shown to be worse than a baseline? Each measure has an interval."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from tsprune.arguments import checked
from tsprune.choices import CHECKED, Checked
from tsprune.cost.latency import Timed, compare_latency
from tsprune.data.pocket import pocket
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.evaluation import METRICS
from tsprune.evaluation.changes import Scored, changes
from tsprune.models.forecaster import Forecaster
from tsprune.pruning.baseline_file import Baseline, checked_measures, timed_horizon
from tsprune.run_options import Options, RunOptions
from tsprune.schema import Column, Schema, Table, estimated
from tsprune.statistics import Estimate, Sample

WORSE, HOLDS, UNDECIDED = "worse", "holds", "undecided"
_BATCH, _ROUNDS = 16, 20  # of two models timed in turns

CHECK = Schema(
    "check",
    Column("measure", "MASE, CRPS, windows, stable_rank, redundancy or latency", dtype="text"),
    Column("baseline", "of the baseline; scores and latency are 1, and changes relative to it"),
    Column("value", "of the model"),
    *estimated("change", "relative; of redundancy a difference of shares; above 0 is worse", limits=""),
    Column("limit", "change that is allowed"),
    Column("verdict", "worse: the interval is above the limit; holds: below; else undecided", dtype="text"),
)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class CheckResult(Table):
    """A table with the columns of `CHECK`."""

    @property
    def worse(self) -> tuple[str, ...]:
        """The measures that are shown to be worse."""
        return tuple(self.frame.loc[self.frame["verdict"] == WORSE, "measure"])


@checked
def check(
    model: Forecaster | Timed,
    baseline: Baseline | Forecaster | Timed | str | Path,
    *,
    suite: Suite | None = None,
    max_loss: float = 0.01,
    max_slowdown: float = 0.1,
    max_drift: float = 0.1,
    measures: Iterable[Checked] = CHECKED,
    **options: Unpack[Options],
) -> CheckResult:
    """Compares a model with a baseline on the same windows.

    model : also an exported one (`tsprune.load_exported`), whose scores and latency are compared
    baseline : measurements (`Baseline.measure`), their file, or another model
    suite : windows; None takes the embedded pocket suite. Those of the baseline
    max_loss : relative loss of MASE and CRPS that is allowed
    max_slowdown : relative change of the time of a forecast that is allowed
    max_drift : relative rise of the mean stable rank (heads become more diffuse), and rise of the share of
        heads that can go for a loss of 1 %, that are allowed
    measures : of scores, stable_rank, redundancy and latency
    options : keywords of `tsprune.run_options.RunOptions`

    Units of the intervals: configurations (or series) for scores, heads for stable ranks, attention sublayers
    for redundancy, rounds for latency. A window that the baseline could forecast and the model cannot is
    worse without an interval. Parts that cannot be compared are in `skipped`.

    Raises TspruneError for an unknown measure, and for a baseline of other windows or another protocol.

    >>> import tsprune
    >>> model = tsprune.load("bundled:timesfm")
    >>> tsprune.check(model, model, measures=["stable_rank"]).worse
    ()
    """
    windows = pocket() if suite is None else suite
    wanted, seed = checked_measures(measures), RunOptions(**options).seed
    if isinstance(baseline, Baseline | str | Path):
        before, other = baseline if isinstance(baseline, Baseline) else Baseline.load(baseline), None
        _require_alike(before, windows)
        after = Baseline.measure(model, windows, measures=wanted, **options)
    else:
        other = baseline
        alone: tuple[Checked, ...] = tuple(name for name in wanted if name != "latency")
        before = Baseline.measure(other, windows, measures=alone, **options)
        after = Baseline.measure(model, windows, measures=alone, **options)
    _require_protocol(before, after)
    limits = {"scores": max_loss, "stable_rank": max_drift, "redundancy": max_drift, "latency": max_slowdown}
    rows: list[dict[str, Any]] = []
    skipped = [*after.skipped, *(pair for pair in before.skipped if pair not in after.skipped)]
    for name in wanted:
        try:
            if name == "latency" and other is not None:
                found = [_latency_in_turns(other, model)]
            else:
                found = list(_COMPARED[name](before, after, windows, seed))
            rows += [_judged(one, limits[name]) for one in found]
        except _SkippedError as error:
            if name not in dict(skipped):
                skipped.append((name, str(error)))
    title = f"{model.name} against {before.model} on {windows.name}"
    return CheckResult(CHECK.frame(rows), title, (*windows.skipped, *skipped))


class _SkippedError(TspruneError):
    """Why a measure cannot be compared."""


def _require_alike(before: Baseline, suite: Suite) -> None:
    if before.windows != suite.fingerprint:
        raise TspruneError(
            f"the baseline of {before.model} was measured on other windows ({before.suite}) than those of "
            f"{suite.name}; name the same data, or write a new baseline"
        )


def _require_protocol(before: Baseline, after: Baseline) -> None:
    """Draws and splits must be those of the baseline; models that sample and others may be compared."""
    both_sample = None not in (before.protocol["samples"], after.protocol["samples"])
    for name in ("samples", "seed") if both_sample else ("seed",):
        if before.protocol[name] != after.protocol[name]:
            raise TspruneError(
                f"the baseline of {before.model} was measured with {name} {before.protocol[name]}, "
                f"{after.model} with {after.protocol[name]}; measure both alike"
            )


_Found = tuple[str, float, float, Estimate]  # measure, baseline, value, change


def _judged(found: _Found, limit: float) -> dict[str, Any]:
    measure, before, value, change = found
    limit = 0.0 if measure == "windows" else limit
    verdict = WORSE if change.low > limit else HOLDS if change.high <= limit else UNDECIDED
    row = {"measure": measure, "baseline": before, "value": value, "limit": limit, "verdict": verdict}
    return row | change.row("change")


def score_changes(before: Baseline, after: Baseline, suite: Suite, seed: int) -> Iterator[_Found]:
    """Changes of all metrics, on the windows that both could forecast; then lost windows.

    Yields (metric or "windows", 1 or windows of the baseline, 1 + change or windows of both, estimate).
    """
    pairs, known, kept = [], 0, 0
    for c in suite.configurations:
        old, new = before.scores.get(c.name), after.scores.get(c.name)
        if old is None:
            continue
        if len(old.rows) and int(old.rows.max()) >= len(c):
            raise TspruneError(f"the baseline has windows of {c.name} that {suite.name} lacks")
        rows = np.intersect1d(old.rows, np.zeros(0, np.int64) if new is None else new.rows)
        known, kept = known + len(old.rows), kept + len(rows)
        if new is not None and len(rows):
            one, other = (x.statistics.select(np.isin(x.rows, rows)) for x in (old, new))
            pairs.append(Scored(c.name, one, [other], c.series[rows]))
    if not known:
        raise _SkippedError("the baseline has no scores")
    for metric in METRICS if pairs else ():
        change = changes(pairs, metric).estimate(seed=seed)
        yield metric, 1.0, 1 + change.value, change
    lost = 1 - kept / known
    yield "windows", float(known), float(kept), Estimate(lost, lost, lost, math.nan, known)


def _stable_rank(before: Baseline, after: Baseline, suite: Suite, seed: int) -> Iterator[_Found]:
    old, new = _shared(before.stable_rank, after.stable_rank, "stable ranks")
    change = Sample.of(np.log(new) - np.log(old), logarithmic=True).estimate(seed=seed)
    yield "stable_rank", float(np.mean(old)), float(np.mean(new)), change


def _redundancy(before: Baseline, after: Baseline, suite: Suite, seed: int) -> Iterator[_Found]:
    old, new = _shared(before.redundancy, after.redundancy, "shares of redundant heads")
    change = Sample.of(np.subtract(new, old)).estimate(seed=seed)
    yield "redundancy", float(np.mean(old)), float(np.mean(new)), change


def _shared(
    old: Mapping[str, float], new: Mapping[str, float], what: str
) -> tuple[Sequence[float], Sequence[float]]:
    names = [name for name in old if name in new]
    if not names:
        raise _SkippedError(f"baseline and model have no {what} in common")
    return [old[name] for name in names], [new[name] for name in names]


def _latency(before: Baseline, after: Baseline, suite: Suite, seed: int) -> Iterator[_Found]:
    """The ratio of medians. Two runs differ by more than the error of a median, so the limits are those of
    single rounds: the 10 % quantile of one model over the 90 % quantile of the other."""
    if not before.latency:
        raise _SkippedError("the baseline has no latency")
    if before.machine != after.machine:
        raise _SkippedError(f"the baseline was timed on another machine ({before.machine})")
    (old_low, old, old_high), (new_low, new, new_high) = (
        np.quantile(one.latency, (0.1, 0.5, 0.9)).tolist() for one in (before, after)
    )
    change = Estimate(new / old - 1, new_low / old_high - 1, new_high / old_low - 1, math.nan, 2)
    yield "latency", 1.0, new / old, change


def _latency_in_turns(baseline: Forecaster | Timed, model: Forecaster | Timed) -> _Found:
    steps = timed_horizon(baseline, model)
    table = compare_latency(baseline, model, batches=(_BATCH,), horizon=steps, rounds=_ROUNDS)
    ratio, low, high = (float(table.iloc[-1][f"time_ratio{limit}"]) for limit in ("", "_low", "_high"))
    return "latency", 1.0, ratio, Estimate(ratio - 1, low - 1, high - 1, math.nan, _ROUNDS)


_COMPARED = {
    "scores": score_changes,
    "stable_rank": _stable_rank,
    "redundancy": _redundancy,
    "latency": _latency,
}
