"""`tsprune study` of every bundled checkpoint on the embedded suite. Limit: 45 minutes.

Times the real command, and says how long each model took and how many paths it drew. Models are studied at
once, as many as there are threads; `--jobs 1` takes one after the other.
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

import torch

from tsprune.models import bundled_names

MINUTES = 45.0


def study(models: list[str], configs: list[str], jobs: int | None, folder: Path) -> float:
    """Wall-clock seconds of the command."""
    chosen = [part for pattern in configs for part in ("--configs", pattern)]
    command = [sys.executable, "-m", "tsprune.cli", "study", *models, *chosen, "--out", str(folder), "--json"]
    command += [] if jobs is None else ["--jobs", str(jobs)]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configs", action="append", default=[])
    parser.add_argument("--jobs", type=int)
    arguments = parser.parse_args()
    configs: list[str] = arguments.configs
    print(f"machine: {os.cpu_count()} cores, {torch.get_num_threads()} torch threads")
    models = [f"bundled:{name}" for name in bundled_names()]
    with tempfile.TemporaryDirectory() as folder:
        seconds = study(models, configs, arguments.jobs, Path(folder))
        manifest = json.loads((Path(folder) / "manifest.json").read_text())
    samples = manifest["arguments"]["samples"]
    for name, took in manifest["seconds"].items():
        drawn = f"{samples[name]} samples a window" if name in samples else "quantiles"
        print(f"{name}: {took:.0f} s ({drawn})")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    jobs = manifest["arguments"]["jobs"]
    print(f"{(used.ru_utime + used.ru_stime) / 60:.1f} CPU minutes, {jobs} at once")
    print(
        f"study of {len(models)} on {manifest['suite']['windows']} windows: {seconds / 60:.1f} min; "
        f"ratio to the limit of {MINUTES:g} min {seconds / 60 / MINUTES:.2f}"
    )
    return int(seconds / 60 > MINUTES)


if __name__ == "__main__":
    sys.exit(main())
