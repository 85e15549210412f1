"""The paper's headline claims, tested on a study's measurements.

A claim is a list of statements about levels and differences, all of which must be shown. The claims about
one model are one family of tests: `tsprune.statistics.verdicts` gives the rules. The claims about mechanism
are a family of their own, tested in `tsprune.explain.mechanism_claims`; they are quoted here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from tsprune.anatomy import Architecture
from tsprune.explain.mechanism_claims import CLAIMS, PREDICTS, TOLERATED
from tsprune.statistics import UNKNOWN, Estimate, Judged, Sample, Test, judged
from tsprune.studies.study_result import Claim

HEADLINE_SHARE = 0.28  # of all heads, with two MLPs, for a loss of at most TOLERATED
ENDS_LOSS = 0.25
PRUNED_PERCENT = 30
RANDOM_LOSS = 0.20


@dataclasses.dataclass(frozen=True)
class Headline:
    """28 % of all heads (from the middle layers) and two middle MLPs ablated together.

    mase, crps : changes on the report windows; None if the middle layers do not have that many heads or
        MLPs
    """

    heads: int
    total: int
    mlps: Sequence[str]
    mase: Sample | None
    crps: Sample | None


@dataclasses.dataclass(frozen=True)
class Pruned:
    """Changes of MASE after `PRUNED_PERCENT` of the middle layers' heads are gone.

    high, low : by highest, and by lowest, stable rank first
    random : of the random draws, crossed with the units
    """

    high: Sample
    low: Sample
    random: Sample


@dataclasses.dataclass(frozen=True)
class Findings:
    """The measurements that the claims about one model are tested on.

    ends : address of each first or last layer -> change of MASE without it
    pruned : None if the middle layers have too few heads
    mechanism : `tsprune.explain.mechanism_table` of the model; empty if it was not measured
    """

    headline: Headline
    ends: Mapping[str, Sample]
    pruned: Pruned | None
    mechanism: pd.DataFrame


@dataclasses.dataclass(frozen=True)
class _Draft:
    """A claim before its verdict.

    shown : the quantity whose interval stands for the claim
    tests : none if the claim does not apply
    """

    statement: str
    evidence: str
    shown: Estimate = UNKNOWN
    tests: Sequence[Test] = ()


def model_claims(name: str, found: Findings, *, seed: int = 0) -> list[Claim]:
    """The claims about a single model.

    seed : of the bootstrap
    """
    drafts = [_middle(found.headline), _ends(found.ends), *_pruning(found.pruned)]
    return [*_decided(name, drafts, seed), *_mechanism(name, found.mechanism)]


def _decided(name: str, drafts: Sequence[_Draft], seed: int) -> list[Claim]:
    """The drafts with the verdicts of their family."""
    tested = [draft for draft in drafts if draft.tests]
    verdicts = dict(zip(map(id, tested), judged([draft.tests for draft in tested], seed=seed), strict=True))
    return [_claim(name, draft, verdicts.get(id(draft))) for draft in drafts]


def _claim(name: str, draft: _Draft, verdict: Judged | None) -> Claim:
    if verdict is None:
        return Claim(name, draft.statement, "not applicable", draft.evidence)
    shown = draft.shown
    return Claim(
        name,
        draft.statement,
        verdict.verdict,
        f"{draft.evidence}; {verdict}",
        shown.value,
        shown.low,
        shown.high,
        verdict.p,
        verdict.agreement,
    )


def _middle(headline: Headline) -> _Draft:
    statement = "Middle layers tolerate ablation: 28 % of all heads and 2 MLPs gone for less than 6 % MASE."
    if headline.mase is None or headline.crps is None:
        evidence = f"the middle layers have too few heads or MLPs ({headline.total} heads in all)"
        return _Draft(statement, evidence)
    mase, crps = headline.mase.estimate(), headline.crps.estimate()
    evidence = (
        f"{headline.heads} of {headline.total} heads (middle layers, highest stable rank first) and "
        f"{' and '.join(headline.mlps)} ablated: MASE {mase.as_percent()}, CRPS {crps.as_percent()}"
    )
    return _Draft(statement, evidence, mase, [Test(headline.mase, "below", TOLERATED)])


def end_layers(layers: pd.DataFrame) -> pd.DataFrame:
    """Rows of the layer sweep (both) that are the first or last layer of their stack."""
    both = layers[layers["unit"] == "both"]
    last = both.groupby("stack")["layer"].transform("max")
    return both[(both["layer"] == 0) | (both["layer"] == last)]


def _ends(ends: Mapping[str, Sample]) -> _Draft:
    statement = "First and last layers do not tolerate ablation: each costs more than 25 % MASE."
    costs = {address: sample.estimate() for address, sample in ends.items()}
    evidence = "MASE without " + ", ".join(
        f"{address} {cost.as_percent()}" for address, cost in costs.items()
    )
    least = min(costs.values(), key=lambda cost: cost.value)
    return _Draft(statement, evidence, least, [Test(one, "above", ENDS_LOSS) for one in ends.values()])


def _pruning(pruned: Pruned | None) -> list[_Draft]:
    published = (
        "Stable-rank pruning costs less than 6 % MASE at 30 % of the middle layers' heads, "
        "random pruning more than 20 %."
    )
    better = "Stable-rank pruning (highest first) beats random pruning at 30 % of the middle layers' heads."
    diffuse = (
        "At 30 % of the middle layers' heads, those of high stable rank can go (less than 6 % MASE), those "
        "of low stable rank cannot (more than 6 %, and more than the others)."
    )
    if pruned is None:
        reason = "the middle layers have too few heads"
        return [_Draft(text, reason) for text in (published, better, diffuse)]
    high, low, random = (one.estimate() for one in (pruned.high, pruned.low, pruned.random))
    draws = np.expm1(pruned.random.values.mean(axis=(1, 2)))
    over_random, over_low = pruned.high.minus(pruned.random), pruned.high.minus(pruned.low)
    costs = (
        f"MASE {high.as_percent()} by stable rank, {random.as_percent()} at random (geometric mean of "
        f"{len(draws)} draws)"
    )
    against = (
        f"MASE by stable rank relative to random draws {over_random.estimate().as_percent()}, lower than in "
        f"{(high.value < draws).sum()} of {len(draws)} draws ({100 * draws.min():+.1f} % to "
        f"{100 * draws.max():+.1f} %)"
    )
    ends = (
        f"MASE {high.as_percent()} without the highest, {low.as_percent()} without the lowest stable ranks; "
        f"the first relative to the second {over_low.estimate().as_percent()}"
    )
    levels = [Test(pruned.high, "below", TOLERATED), Test(pruned.random, "above", RANDOM_LOSS)]
    both = [
        Test(pruned.high, "below", TOLERATED),
        Test(pruned.low, "above", TOLERATED),
        Test(over_low, "below"),
    ]
    return [
        _Draft(published, costs, high, levels),
        _Draft(better, against, over_random.estimate(), [Test(over_random, "below")]),
        _Draft(diffuse, ends, over_low.estimate(), both),
    ]


def _mechanism(name: str, table: pd.DataFrame) -> list[Claim]:
    """The rows of the mechanism's table as claims: one a claim, its statements as the evidence."""
    if table.empty:
        reason = "heads were not ablated in sets"
        return [Claim(name, f"{claim[0].upper()}{claim[1:]}.", "not applicable", reason) for claim in CLAIMS]
    claims = []
    for claim, part in table.groupby("claim", sort=False):
        text = f"{str(claim)[0].upper()}{str(claim)[1:]}."
        if part["p_holm"].isna().all():
            reason = "; ".join(part["statement"].astype(str))
            claims.append(Claim(name, text, "not applicable", f"not tested: {reason}"))
            continue
        first = part.iloc[0]
        evidence = "; ".join(
            f"{row.statement}: {Estimate(row.value, row.low, row.high, row.p_holm, row.units)}"
            for row in part.itertuples()
        )
        unit = "heads" if claim == PREDICTS else "configurations"
        claims.append(
            Claim(
                name,
                text,
                first["verdict"],
                f"{evidence} ({first['units']} {unit}); {first['note']}",
                first["value"],
                first["low"],
                first["high"],
                first["p_holm"],
                first["agreement"],
            )
        )
    return claims


@dataclasses.dataclass(frozen=True)
class MLPMedian:
    """The median change of MASE over a model's MLPs, each ablated alone; `change` is one quantity."""

    model: str
    architecture: Architecture
    change: Sample


def mlp_claim(medians: Sequence[MLPMedian], *, seed: int = 0) -> Claim:
    """Encoder-decoder models tolerate the ablation of an MLP, decoder-only models need theirs.

    The median MLP of every encoder-decoder model must cost less than 6 % of MASE, that of every
    decoder-only model more, and more than every encoder-decoder's. Of encoder-only models the paper says
    nothing here: they are shown, and do not count.
    """
    statement = (
        "Encoder-decoder models tolerate MLP ablation (median cost below 6 % MASE), decoder-only models need "
        "their MLPs (above 6 %)."
    )
    kinds: dict[Architecture, list[MLPMedian]] = {
        "encoder-decoder": [],
        "decoder-only": [],
        "encoder-only": [],
    }
    for one in medians:
        kinds[one.architecture].append(one)
    tolerant, needy = kinds["encoder-decoder"], kinds["decoder-only"]
    if not tolerant or not needy:
        reason = "needs a model of each kind in one study"
        return _claim("all", _Draft(statement, reason), None)
    differences = [one.change.minus(other.change) for one in tolerant for other in needy]
    largest = max((one.estimate() for one in differences), key=lambda one: one.value)
    evidence = "median MASE change without one MLP: " + ", ".join(
        f"{one.model} {one.change.estimate().as_percent()} ({kind})"
        for kind, found in kinds.items()
        for one in found
    )
    evidence += f"; largest ratio of encoder-decoder to decoder-only {largest.as_percent()}"
    tests = [Test(one.change, "below", TOLERATED) for one in tolerant]
    tests += [Test(one.change, "above", TOLERATED) for one in needy]
    tests += [Test(one, "below") for one in differences]
    return _decided("all", [_Draft(statement, evidence, largest, tests)], seed)[0]
