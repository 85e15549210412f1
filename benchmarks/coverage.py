"""How often a nominal 95 % interval holds the truth: configurations from 2 to 55, of 1 to 30 series each.

Errors of an ablated model are simulated series by series, on a log scale: an effect common to all, one of
the configuration (spread `between`) and one of the series (spread `within`), normal or skewed (a gamma
distribution of shape 2: skewness 1.4). The intervals are those of `tsprune.evaluation.changes`, as
everywhere in the package. The truth is the mean estimate of the simulation.

The last column is for comparison: percentiles of a bootstrap that draws configurations, and series within
them. It is too narrow for few configurations, and too wide where series differ more than configurations.

Exit status 1 if a coverage is outside of 0.92 to 0.97.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys

import numpy as np
from numpy.typing import NDArray

from tsprune.evaluation.changes import Scored, changes
from tsprune.evaluation.metrics import WindowStatistics

COUNTS = (2, 3, 5, 8, 15, 55)
SPREADS = ((0.10, 0.05), (0.10, 0.15), (0.05, 0.15))
LOW, HIGH = 0.92, 0.97
EFFECT = 0.05
FIELDS = [field.name for field in dataclasses.fields(WindowStatistics)]

Array = NDArray[np.float64]


def scores(errors: Array) -> WindowStatistics:
    """Windows of one point each, whose MASE is the mean of `errors`."""
    return WindowStatistics(**dict.fromkeys(FIELDS, np.ones(len(errors))) | {"scaled_error_sum": errors})


def noise(rng: np.random.Generator, shape: tuple[int, ...], skewed: bool) -> Array:
    """Random numbers of mean 0 and deviation 1."""
    return (rng.gamma(2, 1, shape) - 2) / np.sqrt(2) if skewed else rng.standard_normal(shape)


def simulated(
    rng: np.random.Generator, count: int, between: float, within: float, skewed: bool, runs: int
) -> list[tuple[Array, Array]]:
    """(errors before [S], errors after [runs, S]) of each configuration."""
    found = []
    for size in rng.integers(1, 31, count):
        before = rng.lognormal(0, 0.3, size)
        effect = EFFECT + between * noise(rng, (runs, 1), skewed) + within * noise(rng, (runs, size), skewed)
        found.append((before, before * np.exp(effect)))
    return found


def coverage(data: list[tuple[Array, Array]], truth: float) -> float:
    """Share of the runs whose interval holds the truth."""
    scored = [
        Scored(f"{number}", scores(before), [scores(one) for one in after], np.arange(len(before)))
        for number, (before, after) in enumerate(data)
    ]
    found = changes(scored, "MASE").estimates()
    return float(np.mean((found.low <= truth) & (truth <= found.high)))


def log_ratio(before: Array, after: Array) -> Array:
    """Of sums over series, [runs]."""
    return np.asarray(np.log(after.sum(axis=-1)) - np.log(before.sum(axis=-1)))


def two_level(rng: np.random.Generator, data: list[tuple[Array, Array]], truth: float, runs: int) -> float:
    """`coverage` of percentiles of 1,000 draws of configurations and of series within them."""
    held = 0
    for run in range(runs):
        drawn = np.zeros(1000)
        for number in rng.integers(0, len(data), (len(data), 1000)):
            for which in np.unique(number):
                here = np.flatnonzero(number == which)
                before, after = data[which]
                series = rng.integers(0, len(before), (len(here), len(before)))
                drawn[here] += log_ratio(before[series], after[run][series])
        low, high = np.quantile(np.exp(drawn / len(data)) - 1, [0.025, 0.975])
        held += low <= truth <= high
    return held / runs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=4000, help="simulated studies a row")
    parser.add_argument("--compare", type=int, default=100, help="of which by the two-level percentiles")
    given = parser.parse_args()
    worst = 0.0
    print("configurations  values  between  within  coverage  two-level percentiles")
    for count in COUNTS:
        for skewed in (False, True):
            for between, within in SPREADS:
                rng = np.random.default_rng([count, skewed, int(1000 * between), int(1000 * within)])
                data = simulated(rng, count, between, within, skewed, given.runs)
                means = np.mean([log_ratio(before, after) for before, after in data], axis=0)
                truth = float(np.expm1(means.mean()))
                found = coverage(data, truth)
                other = two_level(rng, data, truth, given.compare) if given.compare else float("nan")
                worst = max(worst, LOW - found, found - HIGH)
                kind = "skewed" if skewed else "normal"
                print(
                    f"{count:14d}  {kind}  {between:7.2f}  {within:6.2f}  {found:8.3f}  {other:9.3f}",
                    flush=True,
                )
    print(f"all coverages are within {LOW} to {HIGH}" if worst <= 0 else f"off by {worst:.3f}")
    return int(worst > 0)


if __name__ == "__main__":
    sys.exit(main())
