"""The paper's grid on Chronos-Bolt: decoder layers x (1..H heads in stable-rank order), cross-attention.

Replay against a plain loop of hooks (to reach: 12) and against one process per cell (to reach: 40; a few
processes are timed, the rest is extrapolated). Results of replay and loop must be identical.
"""

from __future__ import annotations

import resource
import subprocess
import sys

from measure import arguments, both_ways, machine, share_outside, suite

import tsprune
from tsprune.hooks.ablation import Ablation
from tsprune.models import Forecaster
from tsprune.replay import MOST
from tsprune.sweeps import run

PROCESSES = 3
LOOP, PROCESS = 12, 40
_CELL = """
import sys, torch
torch.set_num_threads(1)
sys.path.insert(0, {path!r})
from measure import suite
import tsprune
model = tsprune.load("bundled:chronos-bolt", device="cpu")
with tsprune.ablate(model, {heads!r}):
    tsprune.evaluate(model, suite({windows!r}))
"""


def grid(model: Forecaster) -> list[Ablation]:
    ranked = tsprune.rank(model).query("stack == 'decoder' and attention == 'cross'")
    cells = []
    for _, layer in ranked.sort_values("rank").groupby("layer"):
        heads = model.anatomy.select(layer["address"].tolist())
        ordered = sorted(heads, key=lambda c: layer["address"].tolist().index(c.address))
        cells += [Ablation(tuple(ordered[:count])) for count in range(1, len(ordered) + 1)]
    return cells


def process_seconds(cells: list[Ablation], windows: int | None) -> float:
    """Mean CPU seconds of a process that computes one cell."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for cell in cells:
        script = _CELL.format(path=sys.path[0], heads=[str(c) for c in cell.components], windows=windows)
        subprocess.run([sys.executable, "-c", script], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / len(cells)


def main() -> int:
    options = arguments(__doc__ or "")
    print(machine())
    model, windows = tsprune.load("bundled:chronos-bolt", device="cpu"), suite(options.windows)
    cells = grid(model)[:: options.every]
    run(model, windows, cells[:MOST])  # imports, and memory that the process will keep
    found = both_ways(model, windows, cells)
    print(
        f"grid of {len(cells)} cells x {len(windows)} windows: plain loop {found.plain:.1f} s, replay "
        f"{found.replay:.1f} s, ratio {found.ratio:.1f} (to reach: {LOOP}); results "
        f"{'identical' if found.identical else 'DIFFER'}"
    )
    if found.ratio < LOOP:
        outside = share_outside(model, windows)
        print(
            f"  not reached; the time with replay: {found.profile()}; a forward with every block replayed "
            f"takes {outside:.1%} of a whole one"
        )
    each = process_seconds(cells[:: max(1, len(cells) // PROCESSES)][:PROCESSES], options.windows)
    print(
        f"one process per cell: {each:.1f} s each (mean of {PROCESSES}), extrapolated to "
        f"{each * len(cells):.0f} s; ratio {each * len(cells) / found.replay:.0f} (to reach: {PROCESS})"
    )
    return int(not found.identical)


if __name__ == "__main__":
    sys.exit(main())
