"""The paper's headline claims, held against what a study measured.

A verdict follows from an interval alone: confirmed if all of it is on the claim's side of the limit,
refuted if all of it is on the other, undecided otherwise. Where a claim is about several changes at
once, their intervals are wider, so that all of them hold together with 95 % (Bonferroni).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import pandas as pd

from tsprune.anatomy import Architecture
from tsprune.evaluation.intervals import Change, Resampled, simultaneous
from tsprune.evaluation.verdicts import above, at_most, below, every
from tsprune.explain.intervals import Interval
from tsprune.study.mechanism import Mechanism
from tsprune.study.result import Claim

HEADLINE_SHARE = 0.28  # of all heads, with two MLPs, for a loss of at most
HEADLINE_LOSS = 0.06
ENDS_LOSS = 0.25
PRUNED_PERCENT = 30
PRUNED_LOSS = 0.06
RANDOM_LOSS = 0.20


@dataclasses.dataclass(frozen=True)
class Headline:
    """28 % of all heads (from the middle layers) and two middle MLPs ablated together.

    mase, crps : on the report windows; None if the middle layers do not have that many heads or MLPs
    """

    heads: int
    total: int
    mlps: Sequence[str]
    mase: Change | None
    crps: Change | None


@dataclasses.dataclass(frozen=True)
class Pruned:
    """MASE after `PRUNED_PERCENT` of the middle layers' heads are gone.

    high, random : by highest stable rank first, and the mean over random draws; intervals that hold
        together
    above_random : difference of the two
    above_low : difference to lowest stable rank first
    low : value by lowest stable rank first
    drawn : values of the random draws
    """

    high: Change
    random: Change
    above_random: Change
    above_low: Change
    low: float
    drawn: Sequence[float]


@dataclasses.dataclass(frozen=True)
class Findings:
    """What the claims about one model follow from.

    ends : address of each first or last layer -> change of MASE without it; intervals hold together
    pruned : None if the middle layers have too few heads
    mechanism : None if it was not measured
    """

    headline: Headline
    ends: Mapping[str, Change]
    pruned: Pruned | None
    mechanism: Mechanism | None


def model_claims(name: str, found: Findings) -> list[Claim]:
    """The claims about a single model."""
    return [
        _middle(name, found.headline),
        _ends(name, found.ends),
        *_pruning(name, found.pruned),
        *_mechanism(name, found.mechanism),
    ]


def _percent(value: float) -> str:
    return f"{100 * value:+.1f} %"


def _points(change: Change) -> str:
    """A difference of two changes, in percentage points."""
    if change.low != change.low:
        return f"{100 * change.value:+.1f} points [no interval]"
    return f"{100 * change.value:+.1f} points [{100 * change.low:+.1f}, {100 * change.high:+.1f}]"


def _middle(name: str, headline: Headline) -> Claim:
    statement = "Middle layers tolerate ablation: 28 % of all heads and 2 MLPs gone for at most 6 % MASE."
    change = headline.mase
    if change is None:
        evidence = f"the middle layers have too few heads or MLPs ({headline.total} heads in all)"
        return Claim(name, statement, "not applicable", evidence)
    evidence = (
        f"{headline.heads} of {headline.total} heads (middle layers, highest stable rank first) and "
        f"{' and '.join(headline.mlps)} ablated: MASE {change}, CRPS {headline.crps}"
    )
    verdict = at_most(change, HEADLINE_LOSS)
    return Claim(name, statement, verdict, evidence, change.value, change.low, change.high)


def end_layers(layers: pd.DataFrame) -> pd.DataFrame:
    """Rows of the layer sweep (both) that are the first or last layer of their stack."""
    both = layers[layers["unit"] == "both"]
    last = both.groupby("stack")["layer"].transform("max")
    return both[(both["layer"] == 0) | (both["layer"] == last)]


def _ends(name: str, ends: Mapping[str, Change]) -> Claim:
    statement = "First and last layers do not tolerate ablation: each costs more than 25 % MASE."
    evidence = "MASE without " + ", ".join(f"{address} {change}" for address, change in ends.items())
    verdict = every([above(change, ENDS_LOSS) for change in ends.values()])
    least = min(ends.values(), key=lambda change: change.value)
    return Claim(name, statement, verdict, evidence, least.value, least.low, least.high)


def _pruning(name: str, pruned: Pruned | None) -> list[Claim]:
    published = (
        "Stable-rank pruning costs less than 6 % MASE at 30 % of the middle layers' heads, "
        "random pruning more than 20 %."
    )
    better = "Stable-rank pruning (highest first) beats random pruning at 30 % of the middle layers' heads."
    diffuse = "Diffuse heads (high stable rank) can go, sharp ones (low) cannot: the other end costs more."
    if pruned is None:
        reason = "the middle layers have too few heads"
        return [Claim(name, text, "not applicable", reason) for text in (published, better, diffuse)]
    high, random, draws = pruned.high, pruned.random, pruned.drawn
    costs = f"MASE {high} by stable rank, {random} at random (mean of {len(draws)} draws)"
    beaten = sum(high.value < one for one in draws)
    against = (
        f"{_points(pruned.above_random)} of MASE against the mean of random draws, cheaper than "
        f"{beaten} of {len(draws)} draws ({_percent(min(draws))} to {_percent(max(draws))})"
    )
    ends = (
        f"MASE {_percent(high.value)} without the highest, {_percent(pruned.low)} without the lowest stable "
        f"ranks: {_points(pruned.above_low)}"
    )
    return [
        Claim(
            name,
            published,
            every([below(high, PRUNED_LOSS), above(random, RANDOM_LOSS)]),
            costs,
            high.value,
            high.low,
            high.high,
        ),
        _difference(name, better, pruned.above_random, against),
        _difference(name, diffuse, pruned.above_low, ends),
    ]


def _difference(name: str, statement: str, difference: Change | Interval, evidence: str) -> Claim:
    """The claim that a difference is negative."""
    value = difference.value if isinstance(difference, Change) else difference.mean
    verdict = below(difference, 0.0)
    return Claim(name, statement, verdict, evidence, value, difference.low, difference.high)


def _mechanism(name: str, mechanism: Mechanism | None) -> list[Claim]:
    claims = []
    for trait, what in (("parroting", "context parroting"), ("seasonality", "the seasonality bias")):
        statement = (
            f"Sharp heads (low stable rank) carry {what}: "
            "it falls more without them than without diffuse ones."
        )
        if mechanism is None or mechanism.difference[trait].count < 2:
            reason = "no windows on which it can be measured, or too few heads"
            claims.append(Claim(name, statement, "not applicable", reason))
            continue
        difference = mechanism.difference[trait]
        evidence = (
            f"{trait} of the unablated forecast exceeds the true future's by {mechanism.clean[trait]}; "
            f"change without sharp heads {mechanism.sharp[trait]}, without diffuse ones "
            f"{mechanism.diffuse[trait]}, difference {difference} ({difference.count} series, 95 %)"
        )
        claims.append(_difference(name, statement, difference, evidence))
    return claims


@dataclasses.dataclass(frozen=True)
class MLPMedian:
    """The median change of MASE over a model's MLPs, each ablated alone; `changes` has one column."""

    model: str
    architecture: Architecture
    changes: Resampled


def mlp_claim(medians: Sequence[MLPMedian]) -> Claim:
    """Encoder-decoder models tolerate the ablation of an MLP, decoder-only models need theirs.

    Every encoder-decoder model must lose less than every decoder-only model. Of encoder-only models
    the paper says nothing here: they are shown, and do not count.
    """
    statement = "Encoder-decoder models tolerate MLP ablation, decoder-only models need their MLPs."
    kinds: dict[Architecture, list[MLPMedian]] = {
        "encoder-decoder": [],
        "decoder-only": [],
        "encoder-only": [],
    }
    for one in medians:
        kinds[one.architecture].append(one)
    pairs = [
        (tolerant.changes.minus(needy.changes))
        for tolerant in kinds["encoder-decoder"]
        for needy in kinds["decoder-only"]
    ]
    if not pairs:
        return Claim("all", statement, "not applicable", "needs a model of each kind in one study")
    differences = [pair.change(level=simultaneous(len(pairs))) for pair in pairs]
    largest = max(differences, key=lambda difference: difference.value)
    evidence = "median MASE change without one MLP: " + ", ".join(
        f"{one.model} {one.changes.change()} ({kind})" for kind, found in kinds.items() for one in found
    )
    evidence += f"; largest difference of encoder-decoder to decoder-only {_points(largest)}"
    verdict = every([below(difference, 0.0) for difference in differences])
    return Claim("all", statement, verdict, evidence, largest.value, largest.low, largest.high)
