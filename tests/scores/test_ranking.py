"""`rank`: one row a head, ranked within its sublayer."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from tests.suites import tiny
from tests.tiny import zeroed
from tests.toy import HEADS, LAYERS, Toy
from tsprune.errors import TspruneError
from tsprune.models import Forecaster
from tsprune.scores import rank, stable_ranks
from tsprune.scores.spectrum import SPECTRUM_SCORES, spectra

SUBLAYER = ["stack", "layer", "attention"]


@pytest.fixture(params=["tiny-chronos-bolt", "tiny-timesfm", "toy"])
def model(request: pytest.FixtureRequest) -> Forecaster:
    return Toy() if request.param == "toy" else tiny(request.param)


@pytest.mark.parametrize("by", ["stable_rank", "stable_rank_effective"])
def test_ranks_order_the_heads_of_each_sublayer(model: Forecaster, by: str) -> None:
    frame = rank(model, by)
    assert frame["address"].tolist() == [c.address for c in model.anatomy.components("head")]
    pd.testing.assert_series_equal(frame["score"], frame[by], check_names=False)
    for _, group in frame.groupby(SUBLAYER):
        assert sorted(group["rank"]) == list(range(1, len(group) + 1))
        assert group.sort_values("rank")["score"].is_monotonic_decreasing


@pytest.mark.parametrize("by", SPECTRUM_SCORES)
def test_other_scores_of_the_weights_order_them_too(model: Forecaster, by: str) -> None:
    frame = rank(model, by).set_index("address")
    assert frame["score"].to_dict() == spectra(model).set_index("address")[by].to_dict()
    for _, group in frame.groupby(SUBLAYER):
        scores = group.sort_values("rank")["score"]
        # many modes are redundant, and so is a small norm
        falling = by == "entropic_rank"
        assert scores.is_monotonic_decreasing if falling else scores.is_monotonic_increasing


def test_the_two_scores_differ_where_norms_and_scales_act() -> None:
    timesfm = rank(tiny("tiny-timesfm"))
    assert not np.allclose(timesfm["stable_rank"], timesfm["stable_rank_effective"])
    bolt = rank(tiny("tiny-chronos-bolt"))  # nothing between q . k and the softmax but the bias
    np.testing.assert_array_equal(bolt["stable_rank"], bolt["stable_rank_effective"])


def test_ties_share_the_lower_number() -> None:
    model = Toy()
    attention = model.module.get_submodule("layers.1.attention")
    with torch.no_grad():  # heads 0 and 2 the same up to scale; they share one key head anyway
        weight = attention.get_parameter("q.weight").view(
            HEADS, -1, attention.get_parameter("q.weight").shape[1]
        )
        weight[2] = 2 * weight[0]
    frame = rank(model)
    first, other, same = frame[frame["layer"] == LAYERS - 1].itertuples()
    assert first.score == same.score
    assert first.rank == same.rank == (1 if first.score > other.score else 2)
    assert other.rank == (3 if first.score > other.score else 1)


def test_a_zero_head_is_last() -> None:
    model = Toy()
    query = model.module.get_submodule("layers.1.attention").get_parameter("q.weight")
    with zeroed(query[:4]):  # the four rows of head 0
        last = rank(model).query("layer == 1")
    assert np.isnan(last["score"].iloc[0])
    assert last["rank"].iloc[0] == HEADS
    assert sorted(last["rank"]) == [1, 2, 3]


def test_the_table_of_stable_ranks_is_not_changed() -> None:
    model = Toy()
    pd.testing.assert_frame_equal(rank(model).drop(columns=["score", "rank"]), stable_ranks(model))


def test_an_unknown_score_is_an_error() -> None:
    with pytest.raises(
        TspruneError, match="unknown score 'size'; one of: stable_rank, stable_rank_effective, entropic_rank"
    ):
        rank(Toy(), "size")
