"""Agreement of scores with exact effects: by hand, and on a model."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tests.suites import small_suite, tiny
from tsprune.data import split
from tsprune.scores import SCORES, agreement, agreement_table, score_table


def head_rows(kind: str, values: list[float], **scores: list[float]) -> pd.DataFrame:
    addresses = [f"{kind}.head.{head}" for head in range(len(values))]
    stack, layer, attention = kind.split(".")
    return pd.DataFrame(
        {
            "address": addresses,
            "kind": "head",
            "stack": stack,
            "layer": int(layer),
            "attention": attention,
            "head": range(len(values)),
            "mase_change": values,
            "crps_change": [-value for value in values],
            **scores,
        }
    )


def test_by_hand() -> None:
    effects = head_rows("stack.0.self", [0.0, 0.1, 0.2, 0.3])
    scores = effects.drop(columns=["mase_change", "crps_change"]).assign(
        stable_rank=[4.0, 3.0, 2.0, 1.0], output_norm=[1.0, 2.0, 4.0, 3.0], attention_entropy=np.nan
    )
    found = agreement_table(scores, effects).set_index(["score", "metric"])
    assert set(found["kind"]) == {"head"}
    assert set(found["group"]) == {"all"}  # one kind of sublayer is all there is
    assert found["count"].tolist() == [4, 4, 4, 4, 0, 0]
    assert found.loc[("stable_rank", "MASE"), "rho"] == pytest.approx(-1)
    assert found.loc[("stable_rank", "CRPS"), "rho"] == pytest.approx(1)
    assert found.loc[("stable_rank", "MASE"), "expected"] == -1  # high is redundant: right about MASE
    # ranks 1 2 4 3 against 1 2 3 4: 1 - 6 * 2 / (4 * 15)
    assert found.loc[("output_norm", "MASE"), "rho"] == pytest.approx(0.8)
    assert found.loc[("output_norm", "MASE"), "expected"] == 1
    assert np.isnan(found.loc[("attention_entropy", "MASE"), "rho"])


def test_groups_are_kinds_of_sublayers() -> None:
    """Within each group the score is right; between them it is wrong, and `all` shows it."""
    parts = [
        head_rows("decoder.0.self", [0.0, 0.1, 0.2], stable_rank=[12.0, 11.0, 10.0]),
        head_rows("decoder.0.cross", [1.0, 1.1, 1.2], stable_rank=[22.0, 21.0, 20.0]),
    ]
    table = pd.concat(parts, ignore_index=True)
    effects = table[["address", "mase_change", "crps_change"]]
    found = agreement_table(table.drop(columns=["mase_change", "crps_change"]), effects)
    rho = found[found["metric"] == "MASE"].set_index("group")["rho"]
    assert rho["decoder.self"] == rho["decoder.cross"] == pytest.approx(-1)
    assert rho["all"] > 0


def test_an_effect_agrees_with_itself() -> None:
    effects = head_rows("stack.0.self", [0.3, 0.1, 0.2, 0.3])
    found = agreement_table(effects, effects).set_index(["score", "metric"])
    assert found.loc[("mase_change", "MASE"), "rho"] == pytest.approx(1)
    assert found.loc[("crps_change", "CRPS"), "rho"] == pytest.approx(1)
    assert found.loc[("mase_change", "CRPS"), "rho"] == pytest.approx(-1)


def test_scores_and_effects_are_of_different_series() -> None:
    model, suite = tiny("tiny-timesfm"), small_suite()
    by = ["stable_rank", "output_norm", "mase_change"]
    found = agreement(model, suite, by=by, seed=2)
    assert set(found["kind"]) == {"head", "mlp"}
    assert set(found.loc[found["kind"] == "mlp", "score"]) == {"output_norm", "mase_change"}
    calibration, report = split(suite, seed=2)
    kinds = ("head", "mlp")
    effects = score_table(model, report, by=["mase_change", "crps_change"], kinds=kinds)
    scores = score_table(model, calibration, by=by, kinds=kinds)
    pd.testing.assert_frame_equal(found, agreement_table(scores, effects))
    # effects that are known are taken as they are
    given = effects[["address", "mase_change", "crps_change"]]
    pd.testing.assert_frame_equal(found, agreement(model, suite, by=by, effects=given, seed=2))
    for row in found.itertuples():
        assert row.count == {"head": 9, "mlp": 3}[row.kind]
        assert row.expected == (1 if SCORES[row.score].redundant == "low-to-high" else -1)
        # three MLPs are too few for an interval
        assert row.kind == "mlp" or row.low <= row.rho <= row.high
