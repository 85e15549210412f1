"""How long it takes to explain the bundled checkpoints, and how much memory. Limits: 6 minutes, 3 GB each.

    python -m benchmarks.explain_time [MODEL]... [--windows N] [--study]

MODEL: all bundled ones by default, each in a process of its own; N: of each configuration of the embedded
suite, 16 by default, as in `tsprune explain`. --study measures what `tsprune study` does of it instead
(limit: 60 seconds of CPU). Prints wall-clock and CPU seconds of each part; of a busy machine only the latter
mean anything.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import subprocess
import sys
import time

import torch

import tsprune
from tsprune.data import chaos, pocket
from tsprune.evaluation.sampling import PER_CONFIGURATION
from tsprune.explain.overview import EXPLAIN_SAMPLES, EXPLAIN_TOKEN_SAMPLES, overview
from tsprune.models import bundled_names
from tsprune.models.forecaster import drawing
from tsprune.studies import STUDY_SAMPLES, STUDY_STEPWISE_SAMPLES
from tsprune.studies.study_settings import EXPLAINED_DRAWS, EXPLAINED_SHARES, EXPLAINED_WINDOWS

MINUTES, GIGABYTES, STUDY_SECONDS = 6.0, 3.0, 60.0


def peak_gigabytes() -> float:
    """The most memory that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak / (1e9 if sys.platform == "darwin" else 1e9 / 1024))  # bytes there, KiB elsewhere


def measure(name: str, windows: int, *, of_study: bool) -> int:
    """Explains one model in this process; 1 if that took more than it may."""
    usual, of_tokens = (
        (STUDY_SAMPLES, STUDY_STEPWISE_SAMPLES) if of_study else (EXPLAIN_SAMPLES, EXPLAIN_TOKEN_SAMPLES)
    )
    model = drawing(tsprune.load(name), None, usual=usual, of_tokens=of_tokens)
    marks: list[tuple[str, float, float, float]] = []

    def mark(step: str) -> None:
        marks.append((step, time.perf_counter(), time.process_time(), peak_gigabytes()))

    def progress(step: str, done: int, total: int) -> None:
        if not marks or marks[-1][0] != step:
            mark(step)

    trajectories = chaos()
    if of_study:
        found = overview(
            model,
            pocket(),
            per_configuration=EXPLAINED_WINDOWS,
            shares=EXPLAINED_SHARES,
            draws=EXPLAINED_DRAWS,
            trajectories=trajectories,
            progress=progress,
        )
    else:
        found = overview(
            model, pocket(), per_configuration=windows, trajectories=trajectories, progress=progress
        )
    mark("end")
    without = f"{found.forecast_windows} of them forecast without heads"
    print(f"{name}, {found.windows} windows, {without}, {len(found.heads)} heads")
    for (step, wall, cpu, _), (_, wall_after, cpu_after, peak) in itertools.pairwise(marks):
        times = f"{wall_after - wall:8.1f} s   {cpu_after - cpu:8.1f} s of CPU"
        print(f"  {step:<12} {times}   peak so far {peak:.2f} GB")
    total, cpu, gigabytes = marks[-1][1] - marks[0][1], marks[-1][2] - marks[0][2], marks[-1][3]
    limit, took = (STUDY_SECONDS, cpu) if of_study else (60 * MINUTES, total)
    print(
        f"  {'all':<12} {total:8.1f} s   {cpu:8.1f} s of CPU; ratio to the limit of {limit:.0f} s "
        f"{took / limit:.2f}; {gigabytes:.2f} GB, ratio to the limit of {GIGABYTES:g} GB "
        f"{gigabytes / GIGABYTES:.2f}"
    )
    return int(took > limit or gigabytes > GIGABYTES)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--windows", type=int, default=PER_CONFIGURATION)
    parser.add_argument("--study", action="store_true")
    options = parser.parse_args()
    if len(options.models) == 1:
        return measure(options.models[0], options.windows, of_study=options.study)
    print(f"machine: {os.cpu_count()} cores, {torch.get_num_threads()} torch threads", flush=True)
    rest = ["--windows", str(options.windows), *(["--study"] if options.study else [])]
    failed = 0
    for name in options.models or [f"bundled:{name}" for name in bundled_names()]:
        command = [sys.executable, "-m", "benchmarks.explain_time", name, *rest]
        failed |= subprocess.run(command, check=False).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())
