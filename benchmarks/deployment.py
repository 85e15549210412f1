"""Exported models against the upstream pipeline, from contexts to quantiles, in turns on the same cores.

To reach: exported fp32 at least 5 times as fast for one series and twice for 64; pruned, recovered and
exported at least 7 and 4 times. --pruned names a folder of `tsprune prune` or `tsprune recover`, whose card
tells its loss.
Threads are those that torch and ONNX Runtime take by themselves.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import tsprune
from tsprune.cost.latency import in_turns, median_interval
from tsprune.deployment import Exported
from tsprune.models import Forecaster

CONTEXT, BATCHES, ROUNDS = 512, (1, 8, 64), 30

Series = list[NDArray[np.float32]]

# from a fresh interpreter to the first forecast; memory beyond the weights is that of packages and buffers
FIRST = """
import re, sys, time
start = time.perf_counter()
import tsprune
model = tsprune.load_exported(sys.argv[1])
model.forecast([[1.0, 2.0, 3.0] * 100], 24)
seconds = time.perf_counter() - start
# getrusage counts the process that this one was forked from
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
print(seconds, peak / 1024, "torch" in sys.modules)
"""


def upstream(model: Forecaster, horizon: int) -> Callable[[Series], object]:
    """What a user of the upstream package calls."""
    pipeline = model.upstream
    if model.family == "chronos-bolt":
        return lambda series: pipeline.predict(
            [torch.from_numpy(x) for x in series], prediction_length=horizon
        )
    return lambda series: model.forecast(
        series, horizon
    )  # settings and all as upstream's evaluation has them


def compared(name: str, call: Callable[[Series], object], base: Callable[[Series], object]) -> list[float]:
    """Prints times and the speed-up over `base` for every batch; returns the speed-ups."""
    rng, found = np.random.default_rng(0), []
    for batch in BATCHES:
        series = list(rng.standard_normal((batch, CONTEXT)).cumsum(1).astype(np.float32))
        pair = (lambda rows=series: base(rows)), (lambda rows=series: call(rows))
        for one in pair:
            one()
        seconds = in_turns(*pair, ROUNDS)
        ms = np.median(seconds, axis=1) * 1000
        ratio, low, high = median_interval(seconds[0] / seconds[1])
        found.append(ratio)
        times = f"{ms[0]:8.2f} ms -> {ms[1]:8.2f} ms, x {ratio:5.2f} [{low:.2f}, {high:.2f}]"
        print(f"  {name:34} batch {batch:3}: {times}", flush=True)
    return found


def first_forecast(model: Exported) -> None:
    """Prints the time and memory of a fresh process up to its first forecast."""
    command = [sys.executable, "-c", FIRST, model.name]
    seconds, megabytes, torch_too = subprocess.run(
        command, capture_output=True, text=True, check=True
    ).stdout.split()
    beyond = float(megabytes) - model.weight_bytes / 2**20
    print(
        f"  first forecast: {float(seconds):.2f} s from a fresh interpreter, "
        f"{beyond:.0f} MiB beyond the weights, torch imported: {torch_too}"
    )


def run(name: str, pruned: Sequence[Path], precisions: Sequence[str], horizon: int | None) -> None:
    model = tsprune.load(name, device="cpu")
    steps = horizon or model.readout_horizon
    base = upstream(model, steps)
    print(f"{model.name}: {model.parameter_count:,} parameters, context {CONTEXT}, horizon {steps}")
    compared("tsprune, torch", lambda series: model.forecast(series, steps), base)
    for source in (model, *(tsprune.load(path, device="cpu") for path in pruned)):
        for precision in precisions:
            with tempfile.TemporaryDirectory() as folder:
                found = tsprune.export(source, Path(folder) / "out", horizon=steps, precision=precision)
                label = f"{Path(source.name).name}, exported {precision}"
                compared(label, lambda series, one=found: one.forecast(series, steps), base)
                first_forecast(found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=["bundled:chronos-bolt", "bundled:timesfm"])
    parser.add_argument("--pruned", nargs="*", type=Path, default=[], help="of the first model")
    parser.add_argument("--precisions", nargs="*", default=["fp32", "int8"])
    parser.add_argument("--horizon", type=int, help="by default those of one pass")
    given = parser.parse_args()
    print(f"machine: {platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} torch threads")
    for place, one in enumerate(given.models):
        run(one, given.pruned if place == 0 else [], given.precisions, given.horizon)
