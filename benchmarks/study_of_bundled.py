"""`tsprune study --budget 45m` of every bundled checkpoint on the embedded suite. Limit: its budget and 15 %.

Times the real command, and says how long each model took and what was left out: ablations, and windows.
Models are studied at once, as many as there are threads; `--jobs 1` takes one after the other.
`--budget none` measures everything.
`--configs PATTERN` (repeatable) restricts the suite, to try the benchmark out.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from tsprune.cli.options import duration
from tsprune.models import bundled_names

MOST = 1.15  # times the budget


def study(models: list[str], given: argparse.Namespace, folder: Path) -> tuple[float, dict[str, Any]]:
    """Wall-clock seconds of the command, and its result as JSON."""
    chosen = [part for pattern in given.configs for part in ("--configs", pattern)]
    command = [sys.executable, "-m", "tsprune.cli", "study", *models, *chosen, "--out", str(folder), "--json"]
    command += [] if given.jobs is None else ["--jobs", str(given.jobs)]
    command += [] if given.budget == "none" else ["--budget", given.budget]
    start = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return time.perf_counter() - start, json.loads(done.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configs", action="append", default=[])
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--budget", default="45m")
    given = parser.parse_args()
    print(f"machine: {os.cpu_count()} cores, {torch.get_num_threads()} torch threads")
    models = [f"bundled:{name}" for name in bundled_names()]
    with tempfile.TemporaryDirectory() as folder:
        seconds, found = study(models, given, Path(folder))
        report = (Path(folder) / "report.html").stat().st_size / 2**20
    manifest = found["result"]["manifest"]
    samples = manifest["arguments"]["samples"]
    for name, took in manifest["seconds"].items():
        drawn = f"{samples[name]} samples a window" if name in samples else "quantiles"
        print(f"{name}: {took:.0f} s ({drawn})")
    for left_out in found["skipped"]:
        print(f"left out: {left_out['what']}: {left_out['reason']}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    jobs = manifest["arguments"]["jobs"]
    print(f"{(used.ru_utime + used.ru_stime) / 60:.1f} CPU minutes, {jobs} at once, report {report:.1f} MB")
    print(f"study of {len(models)} on {manifest['suite']['windows']} windows: {seconds / 60:.1f} min")
    if given.budget == "none":
        return 0
    budget = duration(given.budget)
    print(f"ratio to the budget of {given.budget}: {seconds / budget:.2f} (at most {MOST})")
    return int(seconds > MOST * budget)


if __name__ == "__main__":
    sys.exit(main())
