"""The third mechanism, claim by claim: the statements that must be shown, and the verdicts on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from tsprune.arguments import checked
from tsprune.explain.mechanism import HeadEffects, SetSamples
from tsprune.schema import Column, Schema, estimated
from tsprune.statistics import UNKNOWN, Known, Test, correlation, judged

# the paper's own tolerated loss (28 % of heads and 2 MLPs removed for 6 % of MASE)
TOLERATED = 0.06

PREDICTS = "low stable rank predicts sharp attention"
TRAIT_CLAIMS = {"sharp heads carry parroting": "parroting", "sharp heads carry seasonality": "seasonality"}
DIFFUSE = "diffuse heads can go"
CLAIMS = (PREDICTS, *TRAIT_CLAIMS, DIFFUSE)

MECHANISM = Schema(
    "mechanism",
    Column("model", "name", dtype="text"),
    Column("claim", "about the model", dtype="text"),
    Column("statement", "that the claim needs", dtype="text"),
    *estimated("value", "of the statement", limits=""),
    Column("units", "configurations; heads for the claim about stable rank", dtype="count"),
    Column("verdict", "on the claim: confirmed if all of its statements are shown", dtype="text"),
    Column("p_holm", "of the claim; a model's claims are one family"),
    Column("agreement", "bootstrap seeds with this verdict", "share"),
    Column("note", "verdict and p-value in words", dtype="text"),
)
BY_SHARE = Schema(
    "by_share",
    Column("model", "name", dtype="text"),
    Column("percent", "of the heads of each sublayer ablated", "%"),
    Column("trait", "parroting or seasonality", dtype="text"),
    Column("sharp", "mean change of the trait without sharp heads"),
    Column("diffuse", "mean change of the trait without diffuse heads"),
    *estimated("excess", "change without sharp heads minus change without random heads", limits=""),
)

Statement = tuple[str, Test | Known]


@checked
def mechanism_table(
    effects: Mapping[str, HeadEffects], heads: Mapping[str, pd.DataFrame] | None = None, *, seed: int = 0
) -> pd.DataFrame:
    """The paper's third mechanism: one row per model, claim and statement; columns in `MECHANISM`.

    effects : model -> its `head_effects`
    heads : model -> its table of heads with columns stable_rank and sharpness; without it the claim about
        stable rank is left out
    seed : of the bootstrap

    - Sharp heads carry a trait: without them it falls, falls more than without as many random heads, and
      falls more than without random heads that cost as much error.
    - Diffuse heads can go: without `SetSamples.percent` of the heads, the most diffuse, the scaled error
      grows by less than 6 %, and by less than without as many random heads.
    - Low stable rank predicts sharp attention: Spearman's rho of both over heads is below 0.
    """
    rows = []
    for model, found in effects.items():
        claims = statements(found.samples, None if heads is None else heads.get(model))
        verdicts = judged([[test for _, test in claim] for claim in claims.values()], seed=seed)
        for (name, claim), verdict in zip(claims.items(), verdicts, strict=True):
            decided: dict[str, object] = {"verdict": verdict.verdict, "p_holm": verdict.p}
            decided |= {"agreement": verdict.agreement, "note": str(verdict)}
            for text, test in claim or [("not measured: too few heads or windows", Known(UNKNOWN, "below"))]:
                row: dict[str, object] = {"model": model, "claim": name, "statement": text}
                rows.append(row | test.estimate(seed).row("value", count="units") | decided)
    return MECHANISM.frame(rows)


def statements(samples: SetSamples | None, heads: pd.DataFrame | None) -> dict[str, Sequence[Statement]]:
    """Claim -> the statements that must be shown, with their tests; none without measurements."""
    found: dict[str, Sequence[Statement]] = {} if heads is None else {PREDICTS: ()}
    if heads is not None and {"stable_rank", "sharpness"} <= set(heads):
        rho = correlation(heads["stable_rank"].to_numpy(float), heads["sharpness"].to_numpy(float))
        text = "Spearman's rho of stable rank and sharpness over heads is below 0"
        found[PREDICTS] = ((text, Known(rho, "below")),)
    if samples is None:
        return found | dict.fromkeys((*TRAIT_CLAIMS, DIFFUSE), ())
    for name, trait in TRAIT_CLAIMS.items():
        found[name] = (
            ("change without sharp heads is below 0", Test(samples.change["sharp", trait], "below")),
            (
                "change without sharp heads minus change without as many random heads is below 0",
                Test(samples.excess["sharp", trait], "below"),
            ),
            (
                "the same difference at equal error (fewer or more sharp heads) is below 0",
                Test(samples.matched[trait], "below"),
            ),
        )
    found[DIFFUSE] = (
        (
            f"relative change of the error without {samples.percent:g} % of heads, the most diffuse, is "
            f"below {TOLERATED}",
            Test(samples.error["diffuse"], "below", TOLERATED),
        ),
        (
            "change of the scaled error without diffuse heads minus change without as many random heads is "
            "below 0",
            Test(samples.excess["diffuse", "mase"], "below"),
        ),
    )
    return found


def by_share(effects: Mapping[str, HeadEffects]) -> pd.DataFrame:
    """Traits by the share of heads ablated: one row per model, share and trait; columns in `BY_SHARE`.

    effects : model -> its `head_effects`. The verdicts are in `mechanism_table`.
    """
    rows = []
    for model, found in effects.items():
        sets = found.sets[found.sets["effect"].isin(TRAIT_CLAIMS.values())]
        for (percent, trait), part in sets.groupby(["percent", "effect"], sort=False):
            sharp, diffuse = (part[part["which"] == which].iloc[0] for which in ("sharp", "diffuse"))
            row: dict[str, object] = {"model": model, "percent": percent, "trait": trait}
            row |= {"sharp": sharp["mean"], "diffuse": diffuse["mean"], "excess": sharp["excess"]}
            rows.append(row | {"low": sharp["excess_low"], "high": sharp["excess_high"]})
    return BY_SHARE.frame(rows)
