"""What tells beforehand what a head does: measures that need no ablation, against what ablation shows."""

from __future__ import annotations

import dataclasses

import pandas as pd

from tsprune.evaluation.correlation import correlation

MEASURES = (
    "stable_rank",
    "stable_rank_effective",
    "sharpness",
    "period_share",
    "followed_score",
    "size",
)
OUTCOMES = ("mase", "parroting", "seasonality")


def agreement(heads: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Spearman's rho over heads of each of `MEASURES` with the effects of ablating a head alone.

    heads : `Explanation.heads`; measures and outcomes that it lacks are left out

    One row a measure and outcome: measure, outcome, rho, low, high (95 % bootstrap over heads), p_value
    (against permutations), count. `size` is how far attribution agrees with the exact effect of an
    ablation: then its rho with mase is above 0.
    """
    rows = []
    for measure in MEASURES:
        for outcome in OUTCOMES:
            if measure in heads and outcome in heads:
                found = correlation(heads[measure].to_numpy(float), heads[outcome].to_numpy(float), seed)
                rows.append({"measure": measure, "outcome": outcome} | dataclasses.asdict(found))
    return pd.DataFrame(rows)
