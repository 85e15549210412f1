"""The kernel view: a head as a smoother whose bandwidth its stable rank should tell without data.

Softmax attention is Nadaraya-Watson regression with kernel exp(q . k); how many keys a row spreads
over, and how far apart in time they are, are what its bandwidth is on data (arXiv 2602.01605
reads low stable rank as a narrow kernel, high as a wide one).
"""

from __future__ import annotations

import pandas as pd

from tsprune.explain.attention_maps import AttentionStatistics
from tsprune.models.forecaster import Forecaster
from tsprune.scores.stable_rank import stable_ranks
from tsprune.statistics import correlation_row

BANDWIDTHS = ("effective_keys", "lag_spread", "sharpness")
SCORES = ("stable_rank", "stable_rank_effective")


def kernel_view(model: Forecaster, statistics: AttentionStatistics) -> pd.DataFrame:
    """Does stable rank tell how widely a head attends? Spearman's rho over heads.

    One row for each bandwidth on data (`BANDWIDTHS`), score (`SCORES`) and group of heads: `all`, and each
    attention sublayer kind of each stack, e.g. `decoder.cross`. Columns: group, bandwidth, score, rho, low,
    high (95 % over heads), p_value (of no relation), count. The view expects rho > 0
    for effective_keys and lag_spread, and rho < 0 for sharpness.
    """
    heads = statistics.heads.merge(stable_ranks(model)[["address", *SCORES]], on="address", validate="1:1")
    kinds = heads["stack"] + "." + heads["attention"]
    groups = {"all": heads, **{str(kind): part for kind, part in heads.groupby(kinds, sort=False)}}
    if len(groups) == 2:  # one kind only: that is all of them
        groups = {"all": heads}
    rows = []
    for group, part in groups.items():
        for bandwidth in BANDWIDTHS:
            for score in SCORES:
                found = correlation_row(part[bandwidth].to_numpy(), part[score].to_numpy())
                what = {"group": group, "bandwidth": bandwidth, "score": score}
                rows.append(what | found)
    return pd.DataFrame(rows)
