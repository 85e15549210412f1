"""Rank correlations over heads: of scores with attention on data, and of both with effects of ablation.

All columns of one table are measured on the same windows. To judge a score as a pruning criterion, correlate
it on series that the score has not used: `tsprune.scores.agreement`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from tsprune.explain.attention_maps import AttentionStatistics
from tsprune.explain.induction import TARGETS
from tsprune.models.forecaster import Forecaster
from tsprune.schema import Column, Schema
from tsprune.scores.stable_rank import stable_ranks
from tsprune.statistics import correlation_row

_BANDWIDTHS = ("effective_keys", "lag_spread", "sharpness")
_STABLE_RANKS = ("stable_rank", "stable_rank_effective")
_PROPERTIES = (*_STABLE_RANKS, "sharpness", "period_share", "followed_score", "size")
_OUTCOMES = ("mase", "parroting", "seasonality")

_RHO = (
    Column("rho", "Spearman's rank correlation over heads"),
    Column("low", "lower 95 % limit of rho"),
    Column("high", "upper 95 % limit of rho"),
    Column("p_value", "of the null hypothesis of no relation"),
    Column("count", "heads with both values", dtype="count"),
)
KERNEL = Schema(
    "kernel",
    Column("group", "of heads: all, or one sublayer role of one stack (decoder.cross)", dtype="text"),
    Column("bandwidth", "statistic of attention on data", dtype="text"),
    Column("score", "either stable rank", dtype="text"),
    *_RHO,
)
CORRELATIONS = Schema(
    "correlations",
    Column("measure", "property of a head", dtype="text"),
    Column("outcome", "effect of ablating the head alone", dtype="text"),
    *_RHO,
)
INDUCTION_EFFECTS = Schema(
    "induction_effects",
    Column("target", "of the induction score", dtype="text"),
    Column("block", "positions in the repeated block; NaN for the mean over combinations", "positions"),
    Column("repeats", "of the block; NaN for the mean over combinations"),
    *_RHO,
)


def kernel_view(model: Forecaster, statistics: AttentionStatistics) -> pd.DataFrame:
    """Correlation of stable rank with the bandwidth of attention on data.

    Softmax attention is Nadaraya-Watson regression with kernel exp(q . k). Its bandwidth on data is the
    number of keys that a row spreads over, and their spread in time. arXiv 2602.01605 reads a low stable rank
    as a narrow kernel: that predicts rho > 0 for effective_keys and lag_spread, rho < 0 for sharpness.

    One row per group of heads, bandwidth and stable rank; columns in `KERNEL`.
    """
    heads = statistics.heads.merge(
        stable_ranks(model)[["address", *_STABLE_RANKS]], on="address", validate="1:1"
    )
    roles = heads["stack"] + "." + heads["attention"]
    groups = {str(role): part for role, part in heads.groupby(roles, sort=False)}
    groups = {"all": heads} | (groups if len(groups) > 1 else {})
    return KERNEL.frame(
        {"group": group, "bandwidth": bandwidth, "score": score}
        | correlation_row(part[bandwidth], part[score])
        for group, part in groups.items()
        for bandwidth in _BANDWIDTHS
        for score in _STABLE_RANKS
    )


def head_correlations(heads: pd.DataFrame) -> pd.DataFrame:
    """Correlation of properties of heads with the effects of ablating each head alone.

    heads : `Explanation.heads`; properties and effects that it lacks are left out

    One row per property and effect; columns in `CORRELATIONS`. `size` is the attribution of a head: where it
    agrees with the exact effect on the error (`mase`), rho is above 0.
    """
    return CORRELATIONS.frame(
        {"measure": measure, "outcome": outcome} | correlation_row(heads[measure], heads[outcome])
        for measure in _PROPERTIES
        for outcome in _OUTCOMES
        if measure in heads and outcome in heads
    )


def induction_and_parroting(repeated: pd.DataFrame, effects: pd.DataFrame) -> pd.DataFrame:
    """Correlation of induction scores with the change of parroting without each head.

    repeated : of `induction`; effects : `head_effects(...).heads`

    One row per target and combination, and one for the mean over combinations; columns in
    `INDUCTION_EFFECTS`. If induction heads carry parroting, rho is below 0.
    """
    change = effects.set_index("address")["parroting"]
    rows = []
    for target in TARGETS:
        scores = repeated.pivot(index="address", columns=["block", "repeats"], values=f"{target}_score")
        columns = {(np.nan, np.nan): scores.mean(axis=1), **dict(scores.items())}
        for (block, repeats), values in columns.items():
            found = correlation_row(values, change.reindex(values.index))
            rows.append({"target": target, "block": block, "repeats": repeats} | found)
    return INDUCTION_EFFECTS.frame(rows)
