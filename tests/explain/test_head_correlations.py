"""What is cheap to measure against what ablation shows, over heads."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tsprune.explain import head_correlations


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
