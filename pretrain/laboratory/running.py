"""Runs of the laboratory, one after the other: trained, measured, written down.

Training is always float32, on one thread: whether a processor has bfloat16 instructions must not show in the
results. A run that was stopped goes on from its last saved state, with the same bits on the same processor.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import torch

from pretrain.laboratory import results
from pretrain.laboratory.measures import measure
from pretrain.laboratory.objectives import is_implemented, not_implemented, objective, opened
from pretrain.laboratory.plan import Run
from pretrain.laboratory.windows import Windows, every_window
from pretrain.loop import train
from tsprune.errors import TspruneError

SAVE_SECONDS = 120.0
CHECKPOINT = "checkpoint"

Say = Callable[[str], None]


def chosen(runs: Sequence[Run], patterns: Sequence[str]) -> list[Run]:
    """The runs whose names match a pattern, in order; all of them without patterns.

    Raises TspruneError for a pattern that matches none.
    """
    for pattern in patterns:
        if not any(fnmatchcase(run.name, pattern) for run in runs):
            raise TspruneError(f"no run {pattern!r} in the plan; see python -m pretrain.laboratory status")
    return [run for run in runs if not patterns or any(fnmatchcase(run.name, p) for p in patterns)]


def carry_out(
    runs: Sequence[Run],
    out: Path,
    *,
    folder: Path = results.FOLDER,
    windows: Windows | None = None,
    say: Say = print,
) -> None:
    """Trains and measures what is not finished, in order; what is not implemented is said and passed over.

    out : folder with a folder for each run; one that was stopped goes on from there
    folder : of the results
    windows : to measure on; `every_window` by default
    """
    torch.set_num_threads(1)
    windows = windows or every_window()
    for run in runs:
        if results.is_finished(run, folder):
            continue
        if not is_implemented(run.condition):
            say(f"{run.name}: {not_implemented(run.condition)}")
            continue
        train_run(run, out / run.name, say)
        measure_run(run, out / run.name, windows, folder, say)


def train_run(run: Run, out: Path, say: Say) -> None:
    """Trains a run in the folder `out`, from where its state is; does nothing if it is trained."""
    if (out / CHECKPOINT).exists():
        return
    condition = run.condition
    train(
        objective(condition),
        condition.schedule,
        out,
        seed=run.seed,
        precision="float32",
        source=condition.source,
        save_seconds=SAVE_SECONDS,
        say=functools.partial(_told, run, say),
    )


def _told(run: Run, say: Say, line: str) -> None:
    say(f"{run.name} {line}")


def measure_run(run: Run, out: Path, windows: Windows, folder: Path, say: Say) -> None:
    """Measures a trained run and writes its results down."""
    started = time.process_time()
    model = opened(run.condition, out / CHECKPOINT)
    rows = measure(model, windows, say=functools.partial(_told, run, say))
    seconds = time.process_time() - started
    results.write(run, rows, results.record(run, model.module, out, windows, seconds), folder)
    say(f"{run.name} finished: measured in {seconds:.0f} CPU seconds, written to {folder / run.name}.csv")


def state_of(run: Run, out: Path | None, folder: Path = results.FOLDER) -> str:
    """How far a run is, in words; `out` is where runs are trained, if that is known."""
    if results.is_finished(run, folder):
        return "finished"
    if out is not None and (out / run.name / CHECKPOINT).exists():
        return "trained"
    if out is not None and (out / run.name / "state.pt").exists():
        step = torch.load(out / run.name / "state.pt", weights_only=True)["step"]
        return f"step {step:,}"
    return "planned" if is_implemented(run.condition) else "not implemented"
