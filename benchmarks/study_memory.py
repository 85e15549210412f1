"""Peak resident memory of `tsprune study` on the embedded suite. Limit: 3 GB."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time

import torch

GIGABYTES = 3.0


def main() -> int:
    print(f"machine: {os.cpu_count()} cores, {torch.get_num_threads()} torch threads")
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "tsprune.cli", "study", "--out", folder, "--json"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    gigabytes = peak / (1e9 if sys.platform == "darwin" else 1e9 / 1024)  # bytes there, KiB elsewhere
    print(
        f"study: {seconds:.0f} s, peak {gigabytes:.2f} GB resident; "
        f"ratio to the limit of {GIGABYTES:g} GB {gigabytes / GIGABYTES:.2f}"
    )
    return int(gigabytes > GIGABYTES)


if __name__ == "__main__":
    sys.exit(main())
