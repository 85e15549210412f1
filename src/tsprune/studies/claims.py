"""The paper's headline claims, tested on a study's measurements.

A claim is a list of statements about levels and differences, all of which must hold. The claims about one
model are one family of tests, decided by the rules of `tsprune.statistics.verdicts`. The claims about
mechanism are a family of their own, tested in `tsprune.explain.mechanism_claims`; their results are copied.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from tsprune.anatomy import Architecture
from tsprune.data.suite import Suite
from tsprune.explain.mechanism_claims import CLAIMS, PREDICTS, TOLERATED
from tsprune.hooks.ablation import Ablation
from tsprune.models.forecaster import Forecaster
from tsprune.pruning.strategies import middle_heads, remove_ranked
from tsprune.statistics import UNKNOWN, Estimate, Sample, Test, judged
from tsprune.studies.experiments import PRUNED_PERCENT, LayerUnit, StudyPlan
from tsprune.studies.study_result import Claim
from tsprune.studies.study_tables import Effects, strategies_at
from tsprune.sweeps.sweep_result import Masks, SweepResult

_HEADLINE_SHARE = 0.28  # of all heads, with two MLPs, for a loss of at most TOLERATED
_ENDS_LOSS = 0.25
_RANDOM_LOSS = 0.20


@dataclasses.dataclass(frozen=True)
class Headline:
    """28 % of all heads (from the middle layers) and two middle MLPs ablated together.

    mase, crps : changes on the report windows; None if the middle layers have too few heads or MLPs
    """

    heads: int
    total: int
    mlps: Sequence[str]
    mase: Sample | None
    crps: Sample | None


@dataclasses.dataclass(frozen=True)
class Pruned:
    """Changes of MASE without `PRUNED_PERCENT` of the middle layers' heads.

    high, low : the heads of highest, and of lowest, stable rank
    random : the random draws, crossed with the units
    """

    high: Sample
    low: Sample
    random: Sample


@dataclasses.dataclass(frozen=True)
class Findings:
    """The measurements behind the claims about one model.

    ends : address of each first or last layer -> change of MASE without it
    pruned : None if the middle layers have too few heads
    mechanism : `tsprune.explain.mechanism_table` of the model; empty if not measured
    """

    headline: Headline
    ends: Mapping[str, Sample]
    pruned: Pruned | None
    mechanism: pd.DataFrame


@dataclasses.dataclass(frozen=True)
class _Draft:
    """A claim before its verdict.

    shown : the quantity whose interval represents the claim
    tests : empty if the claim does not apply
    """

    statement: str
    evidence: str
    shown: Estimate = UNKNOWN
    tests: Sequence[Test] = ()


def headline_of(
    model: Forecaster,
    suite: Suite,
    ranking: pd.DataFrame,
    wanted: StudyPlan,
    result: SweepResult,
    calibration: Masks,
    measure: Callable[[Ablation], SweepResult],
    seed: int,
) -> Headline:
    """28 % of all heads and the two middle MLPs that cost least on the calibration series.

    measure : sweeps one ablation
    """
    pool = middle_heads(model.anatomy, ranking)
    count = round(_HEADLINE_SHARE * len(ranking))
    costs = {
        mlp: result.change(ablation, calibration)["MASE"]
        for mlp, ablation in wanted.mlps.items()
        if mlp.layer in model.anatomy.middle_layers(mlp.stack)
    }
    costs = {mlp: cost for mlp, cost in costs.items() if cost == cost}  # of those that were measured
    mlps = tuple(sorted(costs, key=lambda component: costs[component])[:2])
    addresses = [mlp.address for mlp in mlps]
    if len(pool) < count or len(mlps) < 2:
        return Headline(count, len(ranking), addresses, None, None)
    ablation = Ablation((*remove_ranked(pool, count, "high-to-low"), *mlps))
    second = measure(ablation)
    report = {name: ~mask for name, mask in calibration.items()}
    effects = Effects(second, suite, [ablation], masks=report, seed=seed)
    mase, crps = (effects.of([ablation], metric) for metric in ("MASE", "CRPS"))
    return Headline(count, len(ranking), addresses, mase, crps)


def end_layers(layers: pd.DataFrame) -> pd.DataFrame:
    """Rows of the layer sweep (both) that are the first or last layer of their stack."""
    both = layers[layers["unit"] == "both"]
    last = both.groupby("stack")["layer"].transform("max")
    return both[(both["layer"] == 0) | (both["layer"] == last)]


def findings_of(
    effects: Effects, wanted: StudyPlan, layers: pd.DataFrame, headline: Headline, mechanism: pd.DataFrame
) -> Findings:
    """The findings of one model's sweep; `layers` is its table of that name."""
    ends = {
        row.address: effects.of([wanted.layers[LayerUnit(row.stack, row.layer, "both")]], "MASE")
        for row in end_layers(layers).itertuples()
    }
    by = strategies_at(effects, wanted, PRUNED_PERCENT, "MASE")
    pruned = Pruned(by["high-to-low"], by["low-to-high"], by["random"]) if by else None
    return Findings(headline, ends, pruned, mechanism)


def model_claims(name: str, found: Findings, *, seed: int = 0) -> list[Claim]:
    """The claims about a single model; `seed` is of the bootstrap."""
    drafts = [_middle(found.headline), _ends(found.ends), *_pruning(found.pruned)]
    return [*_decided(name, drafts, seed), *_mechanism(name, found.mechanism)]


def _decided(name: str, drafts: Sequence[_Draft], seed: int) -> list[Claim]:
    verdicts = iter(judged([draft.tests for draft in drafts if draft.tests], seed=seed))
    claims = []
    for draft in drafts:
        claim = Claim(name, draft.statement, "not applicable", draft.evidence)
        if draft.tests:
            found, shown = next(verdicts), draft.shown
            numbers = shown.value, shown.low, shown.high, found.p, found.agreement
            claim = Claim(name, draft.statement, found.verdict, f"{draft.evidence}; {found}", *numbers)
        claims.append(claim)
    return claims


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


def _ends(ends: Mapping[str, Sample]) -> _Draft:
    statement = "First and last layers do not tolerate ablation: each costs more than 25 % MASE."
    costs = {address: sample.estimate() for address, sample in ends.items()}
    each = [f"{address} {cost.as_percent()}" for address, cost in costs.items()]
    evidence = f"MASE without {', '.join(each)}"
    least = min(costs.values(), key=lambda cost: cost.value)
    return _Draft(statement, evidence, least, [Test(one, "above", _ENDS_LOSS) for one in ends.values()])


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
    levels = [Test(pruned.high, "below", TOLERATED), Test(pruned.random, "above", _RANDOM_LOSS)]
    both = [levels[0], Test(pruned.low, "above", TOLERATED), Test(over_low, "below")]
    return [
        _Draft(published, costs, high, levels),
        _Draft(better, against, over_random.estimate(), [Test(over_random, "below")]),
        _Draft(diffuse, ends, over_low.estimate(), both),
    ]


def _mechanism(name: str, table: pd.DataFrame) -> list[Claim]:
    """The claims of the mechanism's table, with their statements as the evidence."""
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
        evidence = f"{evidence} ({first['units']} {unit}); {first['note']}"
        numbers = (first[column] for column in ("value", "low", "high", "p_holm", "agreement"))
        claims.append(Claim(name, text, first["verdict"], evidence, *numbers))
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
    decoder-only model more, and more than every encoder-decoder's. The paper makes no claim about
    encoder-only models: they are shown but not tested.
    """
    statement = (
        "Encoder-decoder models tolerate MLP ablation (median cost below 6 % MASE), decoder-only models need "
        "their MLPs (above 6 %)."
    )
    names: tuple[Architecture, ...] = ("encoder-decoder", "decoder-only", "encoder-only")
    kinds = {name: [one for one in medians if one.architecture == name] for name in names}
    tolerant, needy = kinds["encoder-decoder"], kinds["decoder-only"]
    if not tolerant or not needy:
        return Claim("all", statement, "not applicable", "needs a model of each kind in one study")
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
