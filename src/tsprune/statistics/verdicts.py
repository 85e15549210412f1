"""From tests to verdicts: one family of tests, one answer, whatever the seed.

1. A test is a statement about one quantity: it is below, or above, a limit. Its p-value is two-sided, so
   the statement is shown at 5 % exactly if the 95 % interval lies on its side of the limit.
2. A claim is a list of tests which must all hold. All of them have to be shown to confirm it, so its
   p-value is the largest of theirs (an intersection-union test needs no correction). A single statement
   shown to be wrong refutes it: the smallest p-value, times the number of tests (Bonferroni).
3. The claims about one model are a family: their p-values are corrected together (Holm). A claim is
   decided if its corrected p-value is at most 5 %.
4. A verdict must be the same under each of `SEEDS` seeds of the bootstrap; otherwise it is undecided. The
   seeds are tried where any p-value of the family is close to the limit.

Source of 2: Berger (1982), Multiparameter hypothesis testing and acceptance sampling.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np

from tsprune.statistics.estimate import LEVEL, Estimate
from tsprune.statistics.multiple import holm
from tsprune.statistics.sample import Sample

Verdict = Literal["confirmed", "refuted", "undecided"]
Side = Literal["below", "above"]

SEEDS = 40
# of the bootstrap: the p-value of a claim is multiplied in its family, so small ones must be exact, too
DRAWS = 40_000
CLOSE = 6.0


@dataclasses.dataclass(frozen=True)
class Test:
    """The statement that the quantity of `sample` (its only one) is below or above a limit.

    limit : on the scale on which the quantity is reported (0.06: a change of 6 %)
    """

    __test__ = False  # no class of tests

    sample: Sample
    side: Side
    limit: float = 0.0

    def estimate(self, seed: int = 0) -> Estimate:
        """The quantity; p is of the null hypothesis that it is the limit."""
        return self.sample.estimate(null=self.limit, seed=seed)

    def p_value(self, seed: int) -> float:
        """Two-sided, of the null hypothesis that the quantity is the limit."""
        return self.sample.p_value(null=self.limit, seed=seed, draws=DRAWS)

    @property
    def holds(self) -> bool:
        """Whether the statement is true of the estimate."""
        mean = float(self.sample.means()[0])
        value = float(np.expm1(mean)) if self.sample.logarithmic else mean
        return value < self.limit if self.side == "below" else value > self.limit


@dataclasses.dataclass(frozen=True)
class Known:
    """The statement that a quantity is below or above 0, where its estimate is known already."""

    known: Estimate
    side: Side

    def estimate(self, seed: int = 0) -> Estimate:
        """The quantity, whatever the seed."""
        return self.known

    def p_value(self, seed: int) -> float:
        """Of the estimate."""
        return self.known.p

    @property
    def holds(self) -> bool:
        """Whether the statement is true of the estimate."""
        return self.known.value < 0 if self.side == "below" else self.known.value > 0


@dataclasses.dataclass(frozen=True)
class Judged:
    """A verdict and how sure it is.

    p : Holm-corrected over the family; NaN if nothing could be tested
    agreement : share of the bootstrap seeds that give this verdict, before it is called undecided for
        their disagreement; `leaning` is the verdict that most of them give
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

    level : of the family: all its verdicts are right together with about this probability
    seed : the first of `SEEDS` seeds of the bootstrap; the others are tried if the Monte Carlo error could
        move a corrected p-value across 1 - level
    """
    runs = [_once(family, level, seed)]
    if any(_close(claim, p, 1 - level, len(family)) for claim, (_, p) in zip(family, runs[0], strict=True)):
        runs += [_once(family, level, seed + number) for number in range(1, SEEDS)]
    found = []
    for place in range(len(family)):
        votes = Counter(run[place][0] for run in runs)
        leaning, count = votes.most_common(1)[0]
        verdict = leaning if count == len(runs) else "undecided"
        found.append(Judged(verdict, runs[0][place][1], count / len(runs), leaning))
    return found


def _close(claim: Sequence[Test | Known], p: float, limit: float, size: int) -> bool:
    """Whether `CLOSE` Monte Carlo errors of a corrected p-value reach from it to the limit."""
    factor = size * max(1, len(claim))
    error = factor * 2 * math.sqrt(min(p, 1.0) / factor / 2 / DRAWS) if p == p else 0.0
    return abs(p - limit) <= CLOSE * error


def _once(family: Sequence[Sequence[Test | Known]], level: float, seed: int) -> list[tuple[Verdict, float]]:
    """(verdict, corrected p) of every claim under one seed."""
    sides = [_both_sides([(test.holds, test.p_value(seed)) for test in claim]) for claim in family]
    corrected = holm([min(pair) for pair in sides])
    found: list[tuple[Verdict, float]] = []
    for (confirming, refuting), p in zip(sides, corrected, strict=True):
        decided: Verdict = "confirmed" if confirming < refuting else "refuted"
        found.append((decided if p <= 1 - level else "undecided", float(p)))
    return found


def _both_sides(tests: Sequence[tuple[bool, float]]) -> tuple[float, float]:
    """(p of all statements, p of any opposite) of a claim; NaN if a statement could not be tested.

    tests : whether the statement holds of the estimate, and the two-sided p-value of its limit
    """
    if not tests or np.isnan([p for _, p in tests]).any():
        return np.nan, np.nan
    confirming = max(p if holds else 1.0 for holds, p in tests)
    refuting = min(1.0 if holds else p for holds, p in tests)
    return confirming, min(1.0, len(tests) * refuting)
