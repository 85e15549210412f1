"""What an accelerator gives: equal forecasts, transfers, sweep speed with replay, and the time of a study.

    python benchmarks/accelerator.py [--device cuda] [--models timesfm chronos-bolt]

It was not yet run on a GPU. The exit code is 1 if a forecast differs from the CPU's by more than 1e-4 or if
replay changes a bit, and 2 if there is no accelerator.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

import tsprune
from tsprune.data import Suite
from tsprune.errors import TspruneError
from tsprune.hooks.ablation import Ablation
from tsprune.models import Forecaster, bundled_names, load
from tsprune.models.placement import device_of, processor
from tsprune.sweeps import SweepResult, run

TOLERANCE = 1e-4  # relative to the largest value of a forecast
HORIZON = 24
SAMPLES = 4
_Result = TypeVar("_Result")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default=None, help="by default the accelerator that torch finds")
    parser.add_argument("--models", nargs="*", default=bundled_names(), help="names of bundled checkpoints")
    parser.add_argument("--windows", type=int, default=64, help="windows of the sweep and of the study")
    parser.add_argument("--ablations", type=int, default=16, help="heads and MLPs in the sweep, at most")
    chosen = parser.parse_args()
    found = torch.accelerator.current_accelerator(check_available=True)
    if chosen.device is None and found is None:
        print("no accelerator on this machine, so there is nothing to measure", file=sys.stderr)
        return 2
    try:
        device = device_of(chosen.device or found)
    except TspruneError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{processor(device)}, torch {torch.__version__}")
    whole = tsprune.data.pocket()
    suite = whole.only([max(whole.configurations, key=len).name])
    few = [c.select(np.arange(len(c)) < chosen.windows) for c in suite.configurations]
    suite = Suite(suite.name, tuple(few))
    right = [compare(name, suite, device, chosen.ablations) for name in chosen.models]
    return 0 if all(right) else 1


def compare(name: str, suite: Suite, device: torch.device, most: int) -> bool:
    """Prints the figures of one model; whether its results are right."""
    start = time.perf_counter()
    samples = SAMPLES if load(f"bundled:{name}").anatomy.tokens else None
    here, there = (load(f"bundled:{name}", device=one, samples=samples) for one in ("cpu", device))
    contexts = [np.array(context) for context in suite.configurations[0].contexts if len(context)]
    for model in (here, there):
        model.forecast(contexts, HORIZON)  # loads kernels
    (cpu, cpu_seconds), (own, seconds) = (timed(forecasting(m, contexts)) for m in (here, there))
    error = float(np.abs(own - cpu).max() / np.abs(cpu).max())
    print(
        f"{name}: {len(contexts)} windows in {seconds:.3f} s, on the CPU {cpu_seconds:.3f} s; largest "
        f"difference {error:.1e} (limit {TOLERANCE:g}); {transfers(forecasting(there, contexts))} a forecast"
    )
    singles = [Ablation((c,)) for c in there.anatomy.components() if c.kind in ("head", "mlp")]
    singles = singles[:: -(-len(singles) // most)]
    replayed, with_replay = timed(lambda: run(there, suite, singles))
    plain, without = timed(lambda: run(there, suite, singles, replay=False))
    identical = equal(replayed, plain)
    print(
        f"  {len(singles)} ablations: plain loop {without:.1f} s, replay {with_replay:.1f} s, ratio "
        f"{without / with_replay:.2f}; results {'identical' if identical else 'DIFFER'}; "
        f"{transfers(lambda: run(there, suite, singles[:4]))} of {len(singles[:4])} ablations"
    )
    if not there.anatomy.tokens:  # a study of a model that decodes value by value takes minutes
        _, studied = timed(lambda: tsprune.study([there], suite, explain=False))
        print(f"  a study without explanation {studied:.1f} s")
    print(f"  all of it {time.perf_counter() - start:.0f} s")
    return error <= TOLERANCE and identical


def forecasting(model: Forecaster, contexts: list[np.ndarray]) -> Callable[[], np.ndarray]:
    return lambda: model.forecast(contexts, HORIZON).quantiles


def timed(work: Callable[[], _Result]) -> tuple[_Result, float]:
    """The result and the seconds it took; results are in host memory, so nothing is left to wait for."""
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def transfers(work: Callable[[], object]) -> str:
    """Copies to the host and synchronising reads of one call, as torch's profiler counts them."""
    with profile(activities=[ProfilerActivity.CPU, *accelerated()]) as seen:
        work()
    counts = {event.key: event.count for event in seen.key_averages()}
    copies = sum(count for key, count in counts.items() if "Memcpy DtoH" in key)
    return f"{copies} copies to the host and {counts.get('aten::_local_scalar_dense', 0)} reads of values"


def accelerated() -> list[ProfilerActivity]:
    supported = torch.profiler.supported_activities()
    return [one for one in (ProfilerActivity.CUDA, ProfilerActivity.XPU) if one in supported]


def equal(one: SweepResult, other: SweepResult) -> bool:
    """Whether all scores are the same to the last bit."""
    return all(
        np.array_equal(found.spearman, other.scores[ablation][name].spearman, equal_nan=True)
        for ablation, scores in one.scores.items()
        for name, found in scores.items()
    )


if __name__ == "__main__":
    sys.exit(main())
