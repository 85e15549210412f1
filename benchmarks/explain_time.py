"""How long it takes to explain a bundled checkpoint on the pocket suite, part by part.

    python -m benchmarks.explain_time [MODEL] [WINDOWS]

MODEL: bundled:timesfm by default; WINDOWS: of each configuration, 16 by default. The aim is 6 minutes on
2 cores. Prints wall-clock and CPU seconds of each part; of a busy machine only the latter mean anything.
"""

from __future__ import annotations

import itertools
import sys
import time

import tsprune
from tsprune.data import pocket
from tsprune.explain import overview


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "bundled:timesfm"
    windows = int(sys.argv[2]) if len(sys.argv) > 2 else 16
    model = tsprune.load(name)
    marks: list[tuple[str, float, float]] = []

    def progress(step: str, done: int, total: int) -> None:
        if not marks or marks[-1][0] != step:
            marks.append((step, time.perf_counter(), time.process_time()))

    overview(model, pocket(), per_configuration=windows, progress=progress)
    marks.append(("end", time.perf_counter(), time.process_time()))
    for (step, wall, cpu), (_, wall_after, cpu_after) in itertools.pairwise(marks):
        print(f"{step:<12} {wall_after - wall:8.1f} s   {cpu_after - cpu:8.1f} s of CPU")
    total, cpu = marks[-1][1] - marks[0][1], marks[-1][2] - marks[0][2]
    print(f"{'all':<12} {total:8.1f} s   {cpu:8.1f} s of CPU; {360 / total:.2f} times the aim of 6 minutes")


if __name__ == "__main__":
    main()
