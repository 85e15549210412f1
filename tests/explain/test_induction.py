"""Induction: by hand, on the planted model, and against a control that does not repeat."""

from __future__ import annotations

import pytest
import torch

from tests.planted import LAG, Planted
from tests.suites import tiny
from tests.toy import Toy
from tsprune.anatomy import Component
from tsprune.errors import TspruneError
from tsprune.explain import induction
from tsprune.explain.induction import shares_of_rows
from tsprune.hooks.attention import AttentionMap


def test_targets_by_hand() -> None:
    """Patches of 4, a block of 3 patches (12 steps): the query at 0 met its values at -12 and -24."""
    keys = torch.tensor([-24.0, -20, -16, -12, -8, -4, 0])
    weights = torch.tensor([[[[1, 2, 4, 8, 16, 32, 64]]]]) / 127
    found = AttentionMap(
        Component("stack", 0, "self"), weights, torch.ones(1, 7, dtype=bool), weights, (torch.zeros(1), keys)
    )
    shares = shares_of_rows(found, 12, 4)
    occurrence, uniform, counted = (x.item() for x in shares["occurrence"])
    assert occurrence == pytest.approx((1 + 8) / 127)
    assert uniform == pytest.approx(2 / 7)
    assert counted
    assert shares["followed"][0].item() == pytest.approx((2 + 16) / 127)
    assert not shares_of_rows(found, 28, 4)["occurrence"][2].item()


def test_the_planted_head_is_positional() -> None:
    """It looks LAG back whether anything repeats or not: full attention, no score. Others not even that."""
    found = induction(Planted(), blocks=[LAG, LAG + 1], repeats=[3], sequences=4)
    found = found.set_index(["address", "block"])
    copy = found.loc["stack.0.self.head.0", LAG]
    # of the queries that can see an earlier occurrence all copy
    assert copy["occurrence"] == pytest.approx(1, abs=1e-4)
    assert copy["occurrence_control"] == pytest.approx(1, abs=1e-4)
    assert copy["occurrence_score"] == pytest.approx(0, abs=1e-6)
    other = found.loc["stack.0.self.head.0", LAG + 1]
    assert other["occurrence"] == pytest.approx(0, abs=1e-4)
    # LAG back is one step after the occurrence LAG + 1 back
    assert other["followed"] == pytest.approx(1, abs=1e-4)
    even = found.loc["stack.0.self.head.1", LAG]
    assert even["occurrence"] == pytest.approx(even["occurrence_uniform"], abs=1e-4)


class Inducing(Planted):
    """Head 0 attends to the largest value of the query's own sign (q . k = 200 ab)."""

    def __init__(self) -> None:
        super().__init__()
        attention = self.module.layers[0].attention
        attention.q.weight.data.zero_()
        attention.k.weight.data.zero_()
        attention.q.weight.data[0, 0] = 200.0
        attention.k.weight.data[0, 0] = 1.0


def test_a_head_that_looks_for_its_own_value_scores() -> None:
    """Where values repeat, the largest of its own sign is more often the query's own value, earlier."""
    found = induction(Inducing(), blocks=[3], repeats=[4], sequences=64)
    row = found[found["address"] == "stack.0.self.head.0"].iloc[0]
    assert row["occurrence_score_low"] > 0
    even = found[found["address"] == "stack.0.self.head.1"].iloc[0]
    assert even["occurrence_score"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", ["tiny-chronos-bolt", "tiny-chronos-t5", "tiny-moirai", "tiny-chronos2"])
def test_every_model_has_a_table(name: str) -> None:
    model = tiny(name)
    found = induction(model, blocks=[2, 3], repeats=[2], sequences=3)
    heads = [c.address for c in model.anatomy.components("head")]
    assert found["address"].tolist() == heads * 2
    known = found.dropna()
    assert len(known)
    assert known[["occurrence", "followed"]].stack().between(0, 1 + 1e-6).all()
    assert (known["occurrence_score_low"] <= known["occurrence_score_high"]).all()


def test_what_cannot_be_done_is_said() -> None:
    with pytest.raises(TspruneError, match="exceeds"):
        induction(tiny("tiny-timesfm"), blocks=[100])
    with pytest.raises(TspruneError, match="positions lie in time"):
        induction(Toy())
