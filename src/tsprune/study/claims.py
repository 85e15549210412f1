"""The paper's headline claims, held against what a study measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pandas as pd

from tsprune.anatomy import Architecture
from tsprune.study.mechanism import Mechanism
from tsprune.study.result import Claim, ModelStudy, Verdict
from tsprune.sweep.result import Change

HEADLINE_SHARE = 0.28  # of all heads, with two MLPs, for a loss of at most
HEADLINE_LOSS = 0.06
ENDS_LOSS = 0.25
PRUNED_PERCENT = 30
RANDOM_LOSS = 0.20


@dataclasses.dataclass(frozen=True)
class Headline:
    """28 % of all heads (from the middle layers) and two middle MLPs ablated together."""

    heads: int
    total: int
    mlps: Sequence[str]
    change: Change | None  # None: the middle layers do not have that many heads or MLPs


def model_claims(study: ModelStudy, headline: Headline, mechanism: Mechanism | None) -> list[Claim]:
    """The claims about a single model."""
    return [
        _middle(study, headline),
        _ends(study),
        *_pruning(study),
        *_mechanism(study, mechanism),
    ]


def _percent(value: float) -> str:
    return f"{100 * value:+.1f} %"


def _verdict(holds: bool) -> Verdict:
    return "confirmed" if holds else "refuted"


def _middle(study: ModelStudy, headline: Headline) -> Claim:
    statement = "Middle layers tolerate ablation: 28 % of all heads and 2 MLPs gone for at most 6 % MASE."
    change = headline.change
    if change is None:
        evidence = f"the middle layers have too few heads or MLPs ({headline.total} heads in all)"
        return Claim(study.name, statement, "not applicable", evidence)
    evidence = (
        f"{headline.heads} of {headline.total} heads (middle layers, highest stable rank first) and "
        f"{' and '.join(headline.mlps)} ablated: MASE {_percent(change.mase)}, CRPS {_percent(change.crps)}"
    )
    return Claim(study.name, statement, _verdict(change.mase <= HEADLINE_LOSS), evidence)


def end_layers(layers: pd.DataFrame) -> pd.DataFrame:
    """Rows of the layer sweep (both) that are the first or last layer of their stack."""
    both = layers[layers["unit"] == "both"]
    last = both.groupby("stack")["layer"].transform("max")
    return both[(both["layer"] == 0) | (both["layer"] == last)]


def _ends(study: ModelStudy) -> Claim:
    statement = "First and last layers do not tolerate ablation: each costs more than 25 % MASE."
    ends = end_layers(study.layers)
    evidence = ", ".join(
        f"{row.stack}.{row.layer} {_percent(float(row.mase_change))}" for row in ends.itertuples()
    )
    holds = bool((ends["mase_change"] > ENDS_LOSS).all())
    return Claim(study.name, statement, _verdict(holds), f"MASE without {evidence}")


def _pruning(study: ModelStudy) -> list[Claim]:
    published = (
        "Stable-rank pruning costs less than 6 % MASE at 30 % of the middle layers' heads, "
        "random pruning more than 20 %."
    )
    better = (
        "Stable-rank pruning (highest first) beats every random draw at 30 % of the middle layers' heads."
    )
    diffuse = "Diffuse heads (high stable rank) can go, sharp ones (low) cannot: the other end costs more."
    rows = study.pruning
    if len(rows):
        rows = rows[rows["percent"] == PRUNED_PERCENT]
    if not len(rows):
        reason = "the middle layers have too few heads"
        return [Claim(study.name, text, "not applicable", reason) for text in (published, better, diffuse)]
    by_strategy = rows.groupby("strategy")["mase_change"]
    high, low = by_strategy.mean()["high-to-low"], by_strategy.mean()["low-to-high"]
    drawn = rows[rows["strategy"] == "random"]["mase_change"]
    numbers = (
        f"MASE {_percent(high)} by stable rank, {_percent(drawn.mean())} at random "
        f"({_percent(drawn.min())} to {_percent(drawn.max())} over {len(drawn)} draws)"
    )
    holds = high < HEADLINE_LOSS and drawn.mean() > RANDOM_LOSS
    return [
        Claim(study.name, published, _verdict(bool(holds)), numbers),
        Claim(study.name, better, _verdict(bool(high < drawn.min())), numbers),
        Claim(
            study.name,
            diffuse,
            _verdict(bool(high < low)),
            f"MASE {_percent(high)} without the highest, {_percent(low)} without the lowest stable ranks",
        ),
    ]


def _mechanism(study: ModelStudy, mechanism: Mechanism | None) -> list[Claim]:
    claims = []
    for trait, name in (("parroting", "context parroting"), ("seasonality", "the seasonality bias")):
        statement = (
            f"Sharp heads (low stable rank) carry {name}: "
            "it falls more without them than without diffuse ones."
        )
        if mechanism is None or mechanism.difference[trait].count < 2:
            reason = "no windows on which it can be measured, or too few heads"
            claims.append(Claim(study.name, statement, "not applicable", reason))
            continue
        difference = mechanism.difference[trait]
        verdict: Verdict = "inconclusive"
        if difference.high < 0:
            verdict = "confirmed"
        elif difference.low > 0:
            verdict = "refuted"
        evidence = (
            f"{trait} of the unablated forecast exceeds the true future's by {mechanism.clean[trait]}; "
            f"change without sharp heads {mechanism.sharp[trait]}, without diffuse ones "
            f"{mechanism.diffuse[trait]}, difference {difference} ({difference.count} series, 95 %)"
        )
        claims.append(Claim(study.name, statement, verdict, evidence))
    return claims


def mlp_claim(studies: Sequence[ModelStudy]) -> Claim:
    """Encoder-decoder models tolerate the ablation of an MLP, decoder-only models need theirs.

    Of encoder-only models the paper says nothing here: they are shown, and do not count.
    """
    statement = "Encoder-decoder models tolerate MLP ablation, decoder-only models need their MLPs."
    medians: dict[Architecture, list[tuple[str, float]]] = {
        "encoder-decoder": [],
        "decoder-only": [],
        "encoder-only": [],
    }
    for study in studies:
        mlps = study.layers[study.layers["unit"] == "mlp"]
        medians[study.architecture].append((study.name, float(mlps["mase_change"].median())))
    if not medians["encoder-decoder"] or not medians["decoder-only"]:
        return Claim("all", statement, "not applicable", "needs a model of each kind in one study")
    evidence = "median MASE change without one MLP: " + ", ".join(
        f"{name} {_percent(value)} ({kind})" for kind, found in medians.items() for name, value in found
    )
    tolerant = max(value for _, value in medians["encoder-decoder"])
    needy = min(value for _, value in medians["decoder-only"])
    return Claim("all", statement, _verdict(tolerant < needy), evidence)
