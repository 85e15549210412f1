"""CPU seconds of all intervals of a study of one model. Limit: 10 s.

As many ablations as a study of `bundled:chronos-bolt` has, on the windows and series of the embedded
suite, with random scores: the time does not depend on them.
"""

from __future__ import annotations

import dataclasses
import sys
import time

import numpy as np

from tsprune.data.pocket import pocket
from tsprune.evaluation import WindowStatistics
from tsprune.evaluation.changes import Scored, changes
from tsprune.statistics.bootstrap import DRAWS

ABLATIONS = 470
LIMIT = 10.0


def main() -> int:
    rng = np.random.default_rng(0)
    fields = [field.name for field in dataclasses.fields(WindowStatistics)]

    def scores(windows: int) -> WindowStatistics:
        return WindowStatistics(**{name: rng.lognormal(0, 1, windows) for name in fields})

    scored = [
        Scored(c.name, scores(len(c)), [scores(len(c)) for _ in range(ABLATIONS)], c.series)
        for c in pocket().configurations
    ]
    start = time.process_time()
    for metric in ("MASE", "CRPS"):
        changes(scored, metric).estimates()  # type: ignore[arg-type]
    seconds = time.process_time() - start
    print(f"{ABLATIONS} ablations, {DRAWS} draws, both metrics: {seconds:.2f} s of CPU")
    print(f"ratio to the limit of {LIMIT:g} s {seconds / LIMIT:.3f}")
    return int(seconds > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
