"""Everything but the model's own forecasts as a share of an evaluation. Limit: 15 %."""

from __future__ import annotations

import os
import sys

import torch

import tsprune
from tsprune.data import pocket
from tsprune.studies import DEFAULT_MODELS

SHARE = 0.15


def overhead(name: str) -> float:
    """Share of the wall-clock time of `evaluate` on the embedded suite."""
    model, suite = tsprune.load(name), pocket()
    model.forecast([range(64)], 8)  # imports at the first forecast are not evaluation
    frame = tsprune.evaluate(model, suite)
    forward, total = frame["seconds_forward"].sum(), frame["seconds_total"].sum()
    share = float(1 - forward / total)
    print(
        f"{name}: {len(suite)} windows in {total:.2f} s, {forward:.2f} s of it forecasts; "
        f"ratio of the rest to all {share:.3f} (limit {SHARE:g})"
    )
    return share


def main() -> int:
    print(f"machine: {os.cpu_count()} cores, {torch.get_num_threads()} torch threads")
    tsprune.evaluate("seasonal-naive", pocket())  # imports that the first evaluation pays for
    return int(max([overhead(name) for name in DEFAULT_MODELS]) > SHARE)


if __name__ == "__main__":
    sys.exit(main())
