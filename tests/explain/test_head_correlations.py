"""Rank correlations over heads: stable rank, attention on data, induction and effects of ablation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tests.suites import small_suite, tiny
from tsprune.explain import AttentionStatistics, attention, head_correlations, kernel_view
from tsprune.explain.head_correlations import induction_and_parroting
from tsprune.scores.stable_rank import stable_ranks
from tsprune.statistics import spearman


def test_order_is_what_counts() -> None:
    heads = pd.DataFrame(
        {"sharpness": np.arange(20.0), "mase": np.arange(20.0) ** 3, "parroting": -np.arange(20.0)}
    )
    table = head_correlations(heads).set_index(["measure", "outcome"])
    assert set(table.index) == {("sharpness", "mase"), ("sharpness", "parroting")}
    assert table.loc[("sharpness", "mase"), "rho"] == pytest.approx(1)
    assert table.loc[("sharpness", "parroting"), "rho"] == pytest.approx(-1)
    assert (table["p_value"] < 0.01).all()


def test_heads_without_a_value_do_not_count() -> None:
    heads = pd.DataFrame({"size": [1.0, 2, 3, np.nan, 5], "mase": [2.0, np.nan, 4, 1, 6]})
    (row,) = head_correlations(heads).to_dict("records")
    assert row["count"] == 3
    assert row["rho"] == pytest.approx(1)


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


def test_correlation_with_effects() -> None:
    addresses = [f"stack.0.self.head.{i}" for i in range(6)]
    scores = np.arange(6.0)
    found = pd.concat(
        pd.DataFrame(
            {
                "address": addresses,
                "block": b,
                "repeats": 2,
                "occurrence_score": scores,
                "followed_score": -scores,
            }
        )
        for b in (3, 5)
    )
    effects = pd.DataFrame({"address": addresses[::-1], "parroting": scores})
    table = induction_and_parroting(found, effects)
    assert table.loc[table["target"] == "occurrence", "rho"].tolist() == pytest.approx([-1] * 3)
    assert table.loc[table["target"] == "followed", "rho"].tolist() == pytest.approx([1] * 3)
    assert table["block"].isna().sum() == 2
