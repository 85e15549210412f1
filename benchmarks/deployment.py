"""Exported models against the upstream pipeline, from contexts to quantiles, in turns on the same cores.

Every round calls each of them twice and times the second call, as in a service, where nobody else's weights
are in the processor's cache. So other load on the machine hits all alike. A row is a median over the
rounds by the clock and by CPU time, and the speed-up over upstream's pipeline; with --threads 1 the latter
means something on a busy machine, too.

To reach, for the bundled Chronos-Bolt: exported fp32 at least 5 times as fast for one series and twice for
64; pruned, recovered and exported in the best precision 7 and 4 times, and 1.4 times as fast as the original
in the same precision; for `bolt-small` (48 million random weights) exported 3.5 and 2.5 times; for the
bundled TimesFM, pruned, recovered and exported, 4 times for one series. A first forecast without torch takes
at most 1 s and 150 MB beyond the weights.

--pruned names folders of `tsprune prune` or `tsprune recover`, whose cards tell their loss. Exports are kept
in --exports, and used again if they are there.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from released import BOLT, checkpoint

import tsprune
from tsprune.cost.latency import median_interval
from tsprune.deployment import Exported
from tsprune.models import Forecaster

CONTEXT, PRECISIONS = 512, ("fp32", "bf16", "int8")

Series = list[NDArray[np.float32]]
Call = Callable[[Series], object]

# from a fresh interpreter to the first forecast; memory beyond the weights is that of packages and buffers
FIRST = """
import re, sys, time
start, cpu = time.perf_counter(), time.process_time()
import tsprune
model = tsprune.load_exported(sys.argv[1])
model.forecast([[1.0, 2.0, 3.0] * 100], min(24, model.horizon))
seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
# getrusage counts the process that this one was forked from
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
print(seconds, cpu, peak / 1024, "torch" in sys.modules)
"""


def upstream(model: Forecaster, horizon: int) -> Call:
    """What a user of the upstream package calls."""
    pipeline = model.upstream
    if model.family == "chronos-bolt":
        return lambda series: pipeline.predict(  # type: ignore[attr-defined]
            [torch.from_numpy(x) for x in series], prediction_length=horizon
        )
    # settings and all as upstream's evaluation has them
    return lambda series: model.forecast(series, horizon)


def exported(source: Forecaster, precision: str, steps: int, folder: Path, threads: int | None) -> Exported:
    """The export of a model; bf16 is OpenVINO's, torch-export in fp32, the others are ONNX Runtime's."""
    if not folder.exists():
        kind = "fp32" if precision == "torch-export" else precision
        form = {"bf16": "openvino", "torch-export": precision}.get(precision, "onnx")
        tsprune.export(source, folder, horizon=steps, precision=kind, format=form)
    return tsprune.load_exported(folder, threads=threads)


def timed(calls: Mapping[str, Call], series: Series, rounds: int) -> NDArray[np.float64]:
    """Seconds by the clock and of CPU time, [2, calls, rounds]; each round begins with another call."""
    seconds, ordered = np.empty((2, len(calls), rounds)), list(enumerate(calls.values()))
    for index in range(rounds):
        turn = index % len(ordered)
        for place, call in ordered[turn:] + ordered[:turn]:
            call(series)
            start, cpu = time.perf_counter(), time.process_time()
            call(series)
            seconds[:, place, index] = time.perf_counter() - start, time.process_time() - cpu
    return seconds


def compared(calls: Mapping[str, Call], batch: int, rounds: int, against: Mapping[str, str]) -> None:
    """Prints a row of each call; the first is what the others are compared with.

    against : names of calls, and another one that each is compared with as well
    """
    series = list(np.random.default_rng(0).standard_normal((batch, CONTEXT)).cumsum(1).astype(np.float32))
    seconds, names = timed(calls, series, rounds), list(calls)
    for place, name in enumerate(names):
        ms = np.median(seconds[:, place], axis=1) * 1000
        row = f"  batch {batch:3}  {name:32} {ms[0]:8.2f} ms, {ms[1]:8.2f} of CPU"
        for title, other in (("upstream", names[0]), ("its original", against.get(name))):
            if other in names[:place]:
                ratios = seconds[:, names.index(other)] / seconds[:, place]
                clock, low, high = median_interval(ratios[0])
                row += (
                    f"; x {clock:5.2f} [{low:.2f}, {high:.2f}] of {title}, by CPU {np.median(ratios[1]):.2f}"
                )
        print(row, flush=True)


def first_forecast(model: Exported) -> None:
    """Prints the time and memory of a fresh process up to its first forecast."""
    command = [sys.executable, "-c", FIRST, model.name]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    seconds, cpu, megabytes, torch_too = output.split()
    beyond = float(megabytes) - model.weight_bytes / 2**20
    print(
        f"  first forecast: {float(seconds):.2f} s ({float(cpu):.2f} of CPU) from a fresh interpreter, "
        f"{beyond:.0f} MiB beyond the weights, torch imported: {torch_too}"
    )


def run(name: str, pruned: Sequence[Path], given: argparse.Namespace, folder: Path) -> None:
    path = checkpoint(name, folder) if name in BOLT else name
    model = tsprune.load(path, device="cpu")
    steps = given.horizon or model.readout_horizon
    print(f"{name}: {model.parameter_count:,} parameters, context {CONTEXT}, horizon {steps}")
    calls: dict[str, Call] = {
        "upstream": upstream(model, steps),
        "tsprune, torch": lambda series: model.forecast(series, steps),
    }
    sources = {"original": model} | {path.name: tsprune.load(path, device="cpu") for path in pruned}
    found: dict[str, Exported] = {}
    for title, source in sources.items():
        for precision in given.precisions:
            place = folder / f"{name.replace(':', '-')}-{title}-{precision}-{steps}"
            found[f"{title} {precision}"] = exported(source, precision, steps, place, given.threads)
    for title, one in found.items():
        calls[title] = lambda series, one=one: one.forecast(series, steps)  # type: ignore[misc]
        about = one.description
        loss = "" if about.loss is None else f", MASE or CRPS {about.loss:+.2%} on calibration windows"
        print(f"  {title}: {about.parameters:,} parameters, off by {about.distance:.1e}{loss}")
    against = {title: f"original {title.split()[-1]}" for title in found if not title.startswith("original ")}
    for batch in given.batches:
        compared(calls, batch, given.rounds, against)
    first_forecast(next(iter(found.values())))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=["bundled:chronos-bolt", "bundled:timesfm"])
    parser.add_argument("--pruned", nargs="*", type=Path, default=[], help="of the first model")
    parser.add_argument("--precisions", nargs="*", default=PRECISIONS, help="also: torch-export, in fp32")
    parser.add_argument("--batches", nargs="*", type=int, default=(1, 8, 64))
    parser.add_argument("--horizon", type=int, help="by default those of one pass")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, help="of torch and the runtimes; by default their own choice")
    parser.add_argument("--exports", type=Path, help="a folder that keeps the exports")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    print(f"machine: {platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} torch threads")
    with tempfile.TemporaryDirectory() as temporary:
        for place, one in enumerate(given.models):
            run(one, given.pruned if place == 0 else [], given, given.exports or Path(temporary))
