"""Narrow models of tokens: what a second thread saves or costs, by d_model (`NARROW` is set by this).

Chronos-T5 models of random weights, as deep as the bundled one but of other widths, forecast the same windows
with one thread and with two in turns. On the clock: nothing else should run meanwhile.
"""

from __future__ import annotations

import json
import os
import platform
import time
from importlib.resources import files
from pathlib import Path

import numpy as np

from tsprune.cost.threads import NARROW, thread_count
from tsprune.models import Forecaster
from tsprune.models.checkpoints import Checkpoint
from tsprune.models.chronos import Chronos

WIDTHS, HEAD = (128, 192, 256, 384, 512), 32
WINDOWS, CONTEXT, HORIZON, SAMPLES, TURNS = 8, 256, 8, 3, 5


def of_width(width: int) -> Chronos:
    """Of the bundled one's depth, its other sizes in proportion to d_model."""
    config = json.loads((files("tsprune.models") / "bundled/chronos-t5/config.json").read_text())
    sizes = {"d_model": width, "d_kv": HEAD, "num_heads": width // HEAD, "d_ff": 4 * width}
    model = Chronos.blank(Checkpoint(f"d_model {width}", Path(), {**config, **sizes}, {}))
    model.samples = SAMPLES
    return model


def seconds(model: Forecaster, threads: int) -> float:
    """Of one forecast."""
    contexts = np.random.default_rng(0).standard_normal((WINDOWS, CONTEXT)).cumsum(1)
    with thread_count(threads):
        start = time.perf_counter()
        model.forecast(list(contexts), HORIZON)
        return time.perf_counter() - start


def main() -> None:
    print(f"machine: {platform.machine()}, {os.cpu_count()} cores; {WINDOWS} windows, {HORIZON} steps")
    for width in WIDTHS:
        model = of_width(width)
        turns = [(seconds(model, 1), seconds(model, 2)) for _ in range(TURNS + 1)][1:]
        one, two = np.median(turns, axis=0)
        used = 1 if width < NARROW else 2
        print(f"{model.name}: two threads take {two / one:.2f} times as long as one; explained with {used}")


if __name__ == "__main__":
    main()
