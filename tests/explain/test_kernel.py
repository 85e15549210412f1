"""Stable rank against bandwidth on data."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tests.suites import small_suite, tiny
from tsprune.explain import attention, kernel_view
from tsprune.explain.attention_maps import AttentionStatistics
from tsprune.scores.stable_rank import stable_ranks
from tsprune.statistics import spearman


def test_a_bandwidth_that_is_the_stable_rank_is_found() -> None:
    model = tiny("tiny-timesfm")
    ranks = stable_ranks(model)
    keys = 2 * ranks["stable_rank"]
    heads = ranks.drop(columns=["stable_rank", "stable_rank_effective"]).assign(
        effective_keys=keys, lag_spread=keys**2, sharpness=-keys
    )
    found = kernel_view(model, AttentionStatistics(heads, pd.DataFrame()))
    plain = found[found["score"] == "stable_rank"].set_index("bandwidth")
    np.testing.assert_allclose(plain["rho"][["effective_keys", "lag_spread", "sharpness"]], [1, 1, -1])
    assert (plain["p_value"] < 0.05).all()
    assert set(found["group"]) == {"all"}


def test_groups_of_an_encoder_decoder_model() -> None:
    model = tiny("tiny-chronos-t5")
    statistics = attention(model, small_suite())
    found = kernel_view(model, statistics)
    assert set(found["group"]) == {"all", "encoder.self", "decoder.self", "decoder.cross"}
    row = found[(found["group"] == "encoder.self") & (found["bandwidth"] == "lag_spread")].iloc[0]
    encoder = statistics.heads["stack"] == "encoder"
    expected = spearman(
        statistics.heads.loc[encoder, "lag_spread"], stable_ranks(model).loc[encoder, "stable_rank"]
    )
    assert row["rho"] == expected
    assert row["count"] == 9
