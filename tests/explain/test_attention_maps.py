"""Statistics of attention: a planted model's are known by hand, and laws that hold for every model."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.planted import LAG, Planted
from tests.suites import LENGTH, configuration, small_suite, tiny, waves
from tsprune.anatomy import Component
from tsprune.data import Suite
from tsprune.explain.attention_maps import ROW_STATISTICS, attention, statistics_of_rows
from tsprune.hooks.attention import AttentionMap


def test_planted_heads_are_found() -> None:
    """49 positions: head 0 looks LAG back from all but the first LAG of them, head 1 everywhere."""
    found = attention(Planted(), waves(LAG))
    copy, average = found.heads.to_dict("records")
    positions, copying = LENGTH + 1, (LENGTH + 1 - LAG) / (LENGTH + 1)
    assert copy["sharpness"] == pytest.approx(1, abs=1e-4)
    assert copy["effective_keys"] == pytest.approx(1, abs=1e-4)
    assert average["sharpness"] == pytest.approx(0, abs=1e-4)
    assert average["effective_keys"] == pytest.approx(positions, rel=1e-4)
    assert copy["period_share"] == pytest.approx(copying, abs=1e-4)
    assert copy["diagonal"] == pytest.approx(1 - copying, abs=1e-4)
    assert average["period_share"] == pytest.approx(average["period_share_uniform"], abs=1e-4)
    assert average["diagonal"] == pytest.approx((3 * positions - 2) / positions**2, abs=1e-4)
    assert copy["lag"] == pytest.approx(LAG * copying, abs=1e-3)
    assert copy["lag_spread"] == pytest.approx(0, abs=0.05)
    lags = found.profile[found.profile["address"] == copy["address"]].set_index("lag")["mass"]
    assert lags.nlargest(2).index.tolist() == [LAG, 0]
    assert lags[LAG] == pytest.approx(copying, abs=1e-4)
    assert copy["windows"] == 3


def test_another_period_is_not_looked_at() -> None:
    found = attention(Planted(), waves(8)).heads
    assert found["period_share"][0] == pytest.approx(0, abs=1e-4)
    assert found["period_share_uniform"][0] > 0.05


@pytest.mark.parametrize(
    "name", ["tiny-chronos-bolt", "tiny-timesfm", "tiny-chronos-t5", "tiny-toto", "tiny-chronos2"]
)
def test_laws_of_every_model(name: str) -> None:
    model = tiny(name)
    found = attention(model, small_suite(), batch_size=8)
    assert found.heads["address"].tolist() == [c.address for c in model.anatomy.components("head")]
    timed = found.heads[found.heads["windows"] > 0]
    assert len(timed) >= 0.3 * len(found.heads)
    for name_, low, high in (("sharpness", 0, 1), ("diagonal", 0, 1), ("untimed", 0, 1)):
        assert timed[name_].between(low - 1e-5, high + 1e-5).all()
        inside = timed[[f"{name_}_low", name_, f"{name_}_high"]].dropna()
        assert (inside.diff(axis=1).iloc[:, 1:] >= -1e-9).all(axis=None)
    assert (timed["effective_keys"] >= 1 - 1e-5).all()
    sums = found.profile.groupby("address")["mass"].sum()
    per_window = timed.set_index("address")
    assert set(sums.index) == set(per_window.index)
    assert (sums <= 1 + 1e-5).all()
    if (per_window["untimed"] == 0).all():
        np.testing.assert_allclose(sums, 1, atol=1e-5)


def test_the_batch_does_not_matter() -> None:
    model, suite = tiny("tiny-timesfm"), Suite("s", (configuration("a/D/short", [90, 128, 40, 128], 4),))
    one, many = (attention(model, suite, batch_size=size).heads for size in (4, 16))
    np.testing.assert_allclose(one[list(ROW_STATISTICS)], many[list(ROW_STATISTICS)], rtol=1e-4, atol=1e-4)


def test_rows_by_hand() -> None:
    """Weights 1/2, 1/4, 1/4 on keys 8, 4 and 0 steps away, patches of 4, period 8."""
    import torch

    times = torch.tensor([0.0]), torch.tensor([-8.0, -4.0, 0.0])
    weights = torch.tensor([[[[0.5, 0.25, 0.25]]]])
    found = AttentionMap(
        Component("stack", 0, "cross"), weights, torch.ones(1, 3, dtype=bool), weights, times
    )
    values = {k: v.item() for k, v in statistics_of_rows(found, 4, torch.tensor([8.0])).items()}
    entropy = 1.5 * math.log(2)
    assert values["entropy"] == pytest.approx(entropy)
    assert values["sharpness"] == pytest.approx(1 - entropy / math.log(3))
    assert values["effective_keys"] == pytest.approx(2**1.5)
    assert values["lag"] == pytest.approx(5)
    assert values["lag_spread"] == pytest.approx(math.sqrt(36 - 25))
    assert values["diagonal"] == pytest.approx(0.5)
    assert values["diagonal_uniform"] == pytest.approx(2 / 3)
    assert values["period_share"] == pytest.approx(0.5)
    assert values["period_share_uniform"] == pytest.approx(1 / 3)
    coarse = statistics_of_rows(found, 4, torch.tensor([7.0]))
    assert coarse["period_share"].isnan().all()
