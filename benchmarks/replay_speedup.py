"""Single-component sweeps of heads and MLPs with and without replay; the results must be identical."""

from __future__ import annotations

import dataclasses
import os
import sys
import time

import numpy as np
import torch

import tsprune
from tsprune.ablation import Ablation
from tsprune.data import pocket
from tsprune.evaluation import WindowStatistics, prepare
from tsprune.study import DEFAULT_MODELS
from tsprune.sweep import SweepResult, run

CONFIGURATIONS = ["mauna_loa_co2/W/short", "seattle_weather/D/short"]


def identical(a: SweepResult, b: SweepResult) -> bool:
    """Whether every statistic of every ablation and window is the same to the last bit."""
    fields = [field.name for field in dataclasses.fields(WindowStatistics)]
    return a.scores.keys() == b.scores.keys() and all(
        np.array_equal(getattr(one.statistics, field), getattr(b.scores[cell][name].statistics, field))
        for cell, configurations in a.scores.items()
        for name, one in configurations.items()
        for field in fields
    )


def compare(name: str) -> bool:
    model, suite = tsprune.load(name), pocket().only(CONFIGURATIONS)
    prepared = [prepare(configuration) for configuration in suite.configurations]
    singles = [*model.anatomy.components("head"), *model.anatomy.components("mlp")]
    ablations = [Ablation((component,)) for component in singles]
    seconds, results = {}, {}
    for replay in (True, False):
        start = time.perf_counter()
        results[replay] = run(model, suite, ablations, prepared=prepared, replay=replay)
        seconds[replay] = time.perf_counter() - start
    same = identical(results[True], results[False])
    # what replay cannot save: the share of each ablation's own and later layers, all layers equal
    layers = [(s.name, i) for s in model.anatomy.stacks for i in range(len(s.blocks))]
    suffix = np.mean([1 - layers.index((c.stack, c.layer)) / len(layers) for c in singles])
    print(
        f"{name}: {len(ablations)} ablations x {len(suite)} windows, {seconds[True]:.1f} s with and "
        f"{seconds[False]:.1f} s without replay; ratio {seconds[False] / seconds[True]:.2f} "
        f"(by layers alone {1 / suffix:.2f}); results {'identical' if same else 'DIFFER'}"
    )
    return same


def main() -> int:
    print(f"machine: {os.cpu_count()} cores, {torch.get_num_threads()} torch threads")
    return int(not all(compare(name) for name in DEFAULT_MODELS))


if __name__ == "__main__":
    sys.exit(main())
