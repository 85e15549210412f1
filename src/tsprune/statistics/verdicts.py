"""Verdicts on claims: one family of tests, one answer for all seeds.

1. A test states that a quantity is below, or above, a limit. Its p-value is two-sided, so the statement is
   shown at 5 % exactly if the 95 % interval lies on its side of the limit.
2. A claim is a list of tests. All must be shown to confirm it, so its p-value is the largest of theirs (an
   intersection-union test needs no correction). One statement shown to be wrong refutes it: the smallest
   p-value times the number of tests (Bonferroni). Source: Berger (1982), Multiparameter hypothesis testing
   and acceptance sampling.
3. The claims about one model are a family, whose p-values are corrected together (Holm). A claim is decided
   if its corrected p-value is at most 5 %.
4. A verdict must be the same under each of `SEEDS` seeds of the bootstrap; otherwise the claim is undecided.
   The seeds are tried if any p-value of the family is close to the limit.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from tsprune.statistics.estimate import LEVEL, Array, Estimate
from tsprune.statistics.sample import Sample

Verdict = Literal["confirmed", "refuted", "undecided"]
Side = Literal["below", "above"]

SEEDS = 40
# bootstrap draws: p-values of claims are multiplied in their family, so small ones must be exact, too
_DRAWS = 40_000
_CLOSE = 6.0  # Monte Carlo errors


def holm(p_values: ArrayLike) -> Array:
    """Holm's adjusted p-values [N] of a family of N tests; NaN stays NaN and is not counted.

    Source: Holm (1979), A simple sequentially rejective multiple test procedure.

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


@dataclasses.dataclass(frozen=True)
class Test:
    """The statement that the only quantity of `sample` is below or above a limit.

    limit : on the reported scale (0.06: a change of 6 %)
    """

    __test__ = False  # for pytest

    sample: Sample
    side: Side
    limit: float = 0.0

    def estimate(self, seed: int = 0) -> Estimate:
        """The quantity; p is of the null hypothesis that it equals the limit."""
        return self.sample.estimate(null=self.limit, seed=seed)

    def p_value(self, seed: int) -> float:
        """Two-sided, of the null hypothesis that the quantity equals the limit."""
        return self.sample.p_value(null=self.limit, seed=seed, draws=_DRAWS)

    @property
    def holds(self) -> bool:
        """Whether the statement is true of the estimate."""
        mean = float(self.sample.means()[0])
        value = float(np.expm1(mean)) if self.sample.logarithmic else mean
        return value < self.limit if self.side == "below" else value > self.limit


@dataclasses.dataclass(frozen=True)
class Known:
    """The statement that a quantity with a known estimate is below or above 0."""

    known: Estimate
    side: Side

    def estimate(self, seed: int = 0) -> Estimate:
        """The estimated quantity; it does not depend on the seed."""
        return self.known

    def p_value(self, seed: int) -> float:
        """The p-value of the estimate."""
        return self.known.p

    @property
    def holds(self) -> bool:
        """Whether the statement is true of the estimate."""
        return self.known.value < 0 if self.side == "below" else self.known.value > 0


@dataclasses.dataclass(frozen=True)
class Judged:
    """A verdict and its certainty.

    p : Holm-corrected over the family; NaN if nothing could be tested
    agreement : share of the bootstrap seeds with the verdict `leaning`, which most of them give
    """

    verdict: Verdict
    p: float
    agreement: float = 1.0
    leaning: Verdict = "undecided"

    def __str__(self) -> str:
        if np.isnan(self.p):
            return "not tested"
        text = f"Holm-corrected p {'< 0.001' if self.p < 0.001 else f'= {self.p:.3f}'}"
        if self.agreement < 1:
            text += f"; {self.leaning} under {round(SEEDS * self.agreement)} of {SEEDS} bootstrap seeds"
        return text


def judged(family: Sequence[Sequence[Test | Known]], *, level: float = LEVEL, seed: int = 0) -> list[Judged]:
    """The verdict on each claim of a family; a claim is a list of tests.

    level : probability that all verdicts of the family are right together
    seed : the first of `SEEDS` seeds of the bootstrap. The others are tried if Monte Carlo error could move
        a corrected p-value across 1 - level
    """
    runs = [_once(family, level, seed)]
    factors = [len(family) * max(1, len(claim)) for claim in family]  # by which p-values are corrected
    for factor, (_, p) in zip(factors, runs[0], strict=True):
        error = factor * 2 * math.sqrt(min(p, 1.0) / factor / 2 / _DRAWS) if p == p else 0.0
        if abs(p - (1 - level)) <= _CLOSE * error:
            runs += [_once(family, level, seed + number) for number in range(1, SEEDS)]
            break
    found = []
    for place in range(len(family)):
        leaning, count = Counter(run[place][0] for run in runs).most_common(1)[0]
        verdict = leaning if count == len(runs) else "undecided"
        found.append(Judged(verdict, runs[0][place][1], count / len(runs), leaning))
    return found


def _once(family: Sequence[Sequence[Test | Known]], level: float, seed: int) -> list[tuple[Verdict, float]]:
    """(verdict, corrected p) of every claim under one seed."""
    sides = []  # (p of all statements, p of any opposite); NaN if a statement could not be tested
    for claim in family:
        tests = [(test.holds, test.p_value(seed)) for test in claim]
        confirming = refuting = np.nan
        if tests and not np.isnan([p for _, p in tests]).any():
            confirming = max(p if holds else 1.0 for holds, p in tests)
            refuting = min(1.0, len(tests) * min(1.0 if holds else p for holds, p in tests))
        sides.append((confirming, refuting))
    found: list[tuple[Verdict, float]] = []
    for (confirming, refuting), p in zip(sides, holm([min(pair) for pair in sides]), strict=True):
        decided: Verdict = "confirmed" if confirming < refuting else "refuted"
        found.append((decided if p <= 1 - level else "undecided", float(p)))
    return found
