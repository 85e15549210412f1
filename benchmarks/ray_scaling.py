"""A sweep on a local Ray cluster: two workers on two cores against one worker. Target: ratio 1.6.

The times are of the whole sweep, setting the workers up (loading torch and the checkpoint) included. They are
wall-clock times, which others on the machine lengthen: both take turns, and the shortest of each counts.
"""

from __future__ import annotations

import os
import sys
import time

import tsprune
from tsprune.data import pocket
from tsprune.sweeps import run, single_ablations
from tsprune.sweeps.cluster import RayExecutor, import_ray

MODEL = "bundled:timesfm"
# enough work that setting a worker up is a small part of it
CONFIGURATIONS = ["*/D/short", "*/M/short", "*/W/short"]
TARGET = 1.6
REPEATS = 3


def seconds(configurations: list[str], workers: int) -> float:
    ray = import_ray()
    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        model, suite = tsprune.load(MODEL, device="cpu"), pocket().only(configurations)
        singles = [*single_ablations(model, "head").values(), *single_ablations(model, "mlp").values()]
        start = time.perf_counter()
        run(model, suite, singles, executor=RayExecutor())
        return time.perf_counter() - start
    finally:
        ray.shutdown()


def main(configurations: list[str]) -> int:
    print(f"machine: {os.cpu_count()} cores")
    turns = [[seconds(configurations, workers) for workers in (1, 2)] for _ in range(REPEATS)]
    for alone, both in turns:
        print(f"{MODEL}: {alone:.1f} s with one worker, {both:.1f} s with two; ratio {alone / both:.2f}")
    one, two = (min(times) for times in zip(*turns, strict=True))
    print(f"shortest: {one:.1f} s and {two:.1f} s; ratio {one / two:.2f} (target {TARGET:g})")
    return int(one / two < TARGET)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or CONFIGURATIONS))
