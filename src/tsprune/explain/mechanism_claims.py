"""The third mechanism, claim by claim: which statements must be shown, and the verdicts on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from tsprune.arguments import checked
from tsprune.explain.mechanism import HeadEffects, SetSamples
from tsprune.statistics import UNKNOWN, Estimate, Judged, Known, Test, correlation, judged

# the paper's own figure for a loss that is tolerated (28 % of heads and 2 MLPs gone for 6 % of MASE)
TOLERATED = 0.06

PREDICTS = "low stable rank predicts sharp attention"
TRAIT_CLAIMS = {
    "sharp heads carry parroting": "parroting",
    "sharp heads carry seasonality": "seasonality",
}
DIFFUSE = "diffuse heads can go"
CLAIMS = (PREDICTS, *TRAIT_CLAIMS, DIFFUSE)
COLUMNS = ["model", "claim", "statement", "value", "low", "high", "units"]
COLUMNS += ["verdict", "p_holm", "agreement", "note"]

Statement = tuple[str, Test | Known]


@checked
def mechanism_table(
    effects: Mapping[str, HeadEffects], heads: Mapping[str, pd.DataFrame] | None = None, *, seed: int = 0
) -> pd.DataFrame:
    """The paper's third mechanism, claim by claim: one row a model, claim and statement.

    effects : model -> `head_effects` of it
    heads : model -> its table of heads with columns stable_rank and sharpness; without it the claim about
        stable rank is left out
    seed : of the bootstrap

    - Sharp heads carry a trait: it falls without them; it falls more than without as many random heads; and
      more than without random heads that cost as much error.
    - Diffuse heads can go: without `percent` of them the scaled error grows by less than 6 %, and less than
      without as many random ones.
    - Low stable rank predicts sharp attention: over heads, Spearman's rho of both is below 0.

    Columns: model, claim, statement, value, low, high (95 %), units; of the claim, all of whose statements
    must be shown: verdict, p_holm (a model's claims are one family), agreement (share of bootstrap seeds
    with this verdict), note (both in words).
    """
    rows = []
    for model, found in effects.items():
        claims = statements(found.samples, None if heads is None else heads.get(model))
        verdicts = judged([[test for _, test in claim] for claim in claims.values()], seed=seed)
        for (name, claim), verdict in zip(claims.items(), verdicts, strict=True):
            rows += _rows(model, name, claim, verdict, seed)
    return pd.DataFrame(rows, columns=COLUMNS)


def _rows(
    model: str, name: str, claim: Sequence[Statement], verdict: Judged, seed: int
) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for text, test in claim or [("not measured: too few heads or windows", Known(UNKNOWN, "below"))]:
        found = test.estimate(seed)
        row: dict[str, object] = {"model": model, "claim": name, "statement": text, "value": found.value}
        row |= {"low": found.low, "high": found.high, "units": found.count}
        decided = {"verdict": verdict.verdict, "p_holm": verdict.p, "agreement": verdict.agreement}
        rows.append(row | decided | {"note": str(verdict)})
    return rows


def statements(samples: SetSamples | None, heads: pd.DataFrame | None) -> dict[str, list[Statement]]:
    """Claim -> the statements that must be shown, with their tests; none where nothing was measured."""
    found: dict[str, list[Statement]] = {}
    if heads is not None:
        found[PREDICTS] = _predicts(heads)
    if samples is None:
        return found | {name: [] for name in (*TRAIT_CLAIMS, DIFFUSE)}
    for name, trait in TRAIT_CLAIMS.items():
        found[name] = [
            ("change without sharp heads is below 0", Test(samples.change["sharp", trait], "below")),
            (
                "change without sharp heads minus without as many random ones is below 0",
                Test(samples.excess["sharp", trait], "below"),
            ),
            (
                "the same at equal error (fewer or more sharp heads) is below 0",
                Test(samples.matched[trait], "below"),
            ),
        ]
    found[DIFFUSE] = [
        (
            f"relative change of the error without {samples.percent} % of heads, the most diffuse, is below "
            f"{TOLERATED}",
            Test(samples.error["diffuse"], "below", TOLERATED),
        ),
        (
            "change of the scaled error without diffuse heads minus without as many random ones is below 0",
            Test(samples.excess["diffuse", "mase"], "below"),
        ),
    ]
    return found


def _predicts(heads: pd.DataFrame) -> list[Statement]:
    if not {"stable_rank", "sharpness"} <= set(heads):
        return []
    rho: Estimate = correlation(heads["stable_rank"].to_numpy(float), heads["sharpness"].to_numpy(float))
    return [("Spearman's rho of stable rank and sharpness over heads is below 0", Known(rho, "below"))]


def by_share(effects: Mapping[str, HeadEffects]) -> pd.DataFrame:
    """Traits by the share of heads ablated: one row a model, percentage and trait (parroting, seasonality).

    effects : model -> `head_effects` of it

    Columns: model, percent, trait, sharp, diffuse (mean change of the trait), excess, low, high (of the
    sharp heads over random ones, 95 %). The verdicts are in `mechanism_table`.
    """
    rows = []
    for model, found in effects.items():
        for (percent, trait), part in found.sets.groupby(["percent", "effect"], sort=False):
            if trait not in TRAIT_CLAIMS.values():
                continue
            by = part.set_index("which")
            row: dict[str, object] = {"model": model, "percent": percent, "trait": trait}
            row |= {which: by["mean"].get(which) for which in ("sharp", "diffuse")}
            sharp = by.loc["sharp"]
            excess = {"excess": "excess", "low": "excess_low", "high": "excess_high"}
            rows.append(row | {name: sharp.get(column) for name, column in excess.items()})
    return pd.DataFrame(rows)
