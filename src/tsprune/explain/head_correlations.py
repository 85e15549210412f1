"""Which properties of a head go along with what its ablation does: rank correlations over heads.

This describes one table, `Explanation.heads`: properties and effects are of the same windows, and the
effects are those of an explanation (parroting and seasonality beside the error). Whether a score can be
trusted to choose what to remove is another question, asked on series that the score has not seen:
`tsprune.scores.agreement`.
"""

from __future__ import annotations

import pandas as pd

from tsprune.statistics import correlation_row

PROPERTIES = (
    "stable_rank",
    "stable_rank_effective",
    "sharpness",
    "period_share",
    "followed_score",
    "size",
)
OUTCOMES = ("mase", "parroting", "seasonality")


def head_correlations(heads: pd.DataFrame) -> pd.DataFrame:
    """Spearman's rho over heads of each of `PROPERTIES` with the effects of ablating a head alone.

    heads : `Explanation.heads`; properties and outcomes that it lacks are left out

    One row a property and outcome: measure, outcome, rho, low, high (95 % over heads), p_value (of no
    relation), count. `size` is how far attribution agrees with the exact effect of an
    ablation: then its rho with mase is above 0.
    """
    rows = []
    for measure in PROPERTIES:
        for outcome in OUTCOMES:
            if measure in heads and outcome in heads:
                found = correlation_row(heads[measure].to_numpy(float), heads[outcome].to_numpy(float))
                rows.append({"measure": measure, "outcome": outcome} | found)
    return pd.DataFrame(rows)
