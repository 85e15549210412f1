"""Stable rank of every head of a model of TimesFM 2.5's size, against dense SVDs of W_Q W_K^T.

Limits: under 2 s, and at least 50 times faster. Dense SVDs are timed on a sample of the heads and
scaled up to all of them.
"""

from __future__ import annotations

import os
import sys
import time

import torch
from timesfm.timesfm_2p5.timesfm_2p5_base import TimesFM_2p5_200M_Definition
from timesfm.timesfm_2p5.timesfm_2p5_torch import TimesFM_2p5_200M_torch_module

from tsprune.models.timesfm import TimesFM
from tsprune.scores import stable_ranks
from tsprune.scores.stable_rank import query_key

SECONDS, RATIO = 2.0, 50.0
SAMPLE, RUNS = 2, 3


def model() -> TimesFM:
    """The architecture of TimesFM 2.5 200M with random weights; norms and scales are random, too."""
    torch.manual_seed(0)
    module = TimesFM_2p5_200M_torch_module()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("scale"):
                parameter.uniform_(0.5, 1.5)
    return TimesFM(module, "random weights", 2048)


def main() -> int:
    threads = torch.get_num_threads()
    forecaster = model()
    heads = forecaster.anatomy.components("head")
    layers = TimesFM_2p5_200M_Definition().stacked_transformers.num_layers
    print(f"{len(heads)} heads in {layers} layers, d_model {forecaster.anatomy.d_model}, both variants")
    print(f"machine: {os.cpu_count()} cores, {threads} torch threads")

    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        table = stable_ranks(forecaster)
        seconds.append(time.perf_counter() - start)
    ours = min(seconds)

    query, key = query_key(forecaster, forecaster.anatomy.stacks[0].blocks[0].attention[0], "paper")
    start = time.perf_counter()
    dense = []
    for head in range(SAMPLE):
        values = torch.linalg.svdvals(query[head] @ key[head].mT)
        dense.append(float((values**2).sum() / values[0] ** 2))
    each = (time.perf_counter() - start) / SAMPLE
    theirs = 2 * each * len(heads)  # both variants

    error = max(abs(a / b - 1) for a, b in zip(table["stable_rank"], dense, strict=False))
    print(f"tsprune {ours:.2f} s (best of {RUNS}, limit {SECONDS:g} s)")
    print(f"dense SVD {each:.2f} s a matrix, {theirs:.0f} s for all (scaled up from {SAMPLE} heads)")
    print(f"ratio {theirs / ours:.0f} (limit {RATIO:g}); largest relative difference {error:.1e}")
    return int(ours > SECONDS or theirs / ours < RATIO or error > 1e-9)


if __name__ == "__main__":
    sys.exit(main())
