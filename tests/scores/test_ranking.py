"""`rank` and `score_table`: one row a component, ranked among its peers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from tests.capabilities import CAPABILITIES
from tests.suites import small_suite, tiny
from tests.tiny import TINY, few_samples, pristine, zeroed
from tests.toy import HEADS, LAYERS, Toy
from tsprune import prune
from tsprune.data import Suite
from tsprune.errors import TspruneError
from tsprune.models import Forecaster, SamplingForecaster
from tsprune.scores import SCORES, rank, redundant_first, score_table, screen, stable_ranks
from tsprune.scores.ranking import ranks
from tsprune.scores.weight_scores import SPECTRUM_SCORES, spectra
from tsprune.sweeps import sweep

SUBLAYER = ["stack", "layer", "attention"]


@pytest.fixture(params=["tiny-chronos-bolt", "tiny-timesfm", "toy"])
def model(request: pytest.FixtureRequest) -> Forecaster:
    return Toy() if request.param == "toy" else tiny(request.param)


@pytest.mark.parametrize("by", ["stable_rank", "stable_rank_effective"])
def test_ranks_order_the_heads_of_each_sublayer(model: Forecaster, by: str) -> None:
    frame = rank(model, by=by)
    assert frame["address"].tolist() == [c.address for c in model.anatomy.components("head")]
    pd.testing.assert_series_equal(frame["score"], frame[by], check_names=False)
    for _, group in frame.groupby(SUBLAYER):
        assert sorted(group["rank"]) == list(range(1, len(group) + 1))
        assert group.sort_values("rank")["score"].is_monotonic_decreasing


@pytest.mark.parametrize("by", SPECTRUM_SCORES)
def test_other_scores_of_the_weights_order_them_too(model: Forecaster, by: str) -> None:
    frame = rank(model, by=by).set_index("address")
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


# --- by any score, any kind ----------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in TINY if name != "tiny-chronos-bolt-cached"])
def test_every_score_of_every_family(name: str) -> None:
    model, suite = few_samples(tiny(name)), small_suite()
    kinds = ("head", "mlp", "layer")
    with pristine(model):
        table = score_table(model, suite, kinds=kinds)
    expected = [c.address for kind in kinds for c in model.anatomy.components(kind)]
    assert table["address"].tolist() == expected
    names = [n for n in SCORES if n in table]
    # a sampled forecast has no gradient
    assert set(SCORES) - set(names) == ({"first_order"} if isinstance(model, SamplingForecaster) else set())
    # TimesFM's MLPs and attention sublayers are whole inputs of a norm: derivatives do not see them
    normed = {"mlp", "layer"} if CAPABILITIES[model.family].norms_outputs else set()
    for score in names:
        for kind in kinds:
            values = table.loc[table["kind"] == kind, score]
            has = kind in SCORES[score].kinds and not (
                score in ("first_order", "screening") and kind in normed
            )
            assert values.notna().any() == has, (score, kind)


@pytest.mark.parametrize("kind", ["head", "mlp", "attention", "layer"])
def test_exact_effects_are_the_sweeps(kind: str) -> None:
    model, suite = tiny("tiny-timesfm"), small_suite()
    swept = sweep(model, suite, kind=kind)  # type: ignore[arg-type]
    for by in ("mase_change", "crps_change", "spearman_distance"):
        frame = rank(model, suite, by=by, kind=kind)  # type: ignore[arg-type]
        assert frame["address"].tolist() == swept["address"].tolist()
        np.testing.assert_array_equal(frame["score"], swept[by])


def test_gradient_scores_are_the_screenings() -> None:
    model, suite = tiny("tiny-timesfm"), small_suite()
    table = score_table(model, suite, by=["first_order", "screening"], kinds=("mlp", "layer"), seed=3)
    screened = screen(model, suite, components=table["address"].tolist(), batch_size=16, seed=3)
    screened = screened.set_index("address").loc[table["address"]]
    np.testing.assert_array_equal(table["screening"], screened["score"])
    np.testing.assert_array_equal(table["first_order"], screened["first_order"].abs())


def test_the_lowest_effect_is_the_first_to_go() -> None:
    model, suite = tiny("tiny-timesfm"), small_suite()
    frame = rank(model, suite, by="mase_change", kind="layer")
    assert frame.sort_values("rank")["score"].is_monotonic_increasing
    assert sorted(frame["rank"]) == [1, 2, 3]
    assert redundant_first("mase_change") == "low-to-high"
    assert redundant_first("stable_rank") == "high-to-low"


def test_layers_are_ranked_within_their_stack() -> None:
    frame = rank(tiny("tiny-chronos-bolt"), by="weight_magnitude", kind="layer")
    assert {stack: sorted(part["rank"]) for stack, part in frame.groupby("stack")} == {
        "encoder": [1, 2],
        "decoder": [1, 2, 3],
    }


@pytest.mark.parametrize(
    ("by", "expected"), [("stable_rank", [2, 1, 4, 2, 5]), ("output_norm", [2, 4, 1, 2, 5])]
)
def test_ties_and_what_has_no_score(by: str, expected: list[int]) -> None:
    frame = pd.DataFrame({"score": [2.0, 3.0, 1.0, 2.0, np.nan], "stack": "s", "layer": 0, "attention": "a"})
    assert ranks(frame.assign(head=range(5)), SCORES[by]).tolist() == expected


def test_mlps_have_no_head_columns_to_fill() -> None:
    frame = rank(tiny("tiny-timesfm"), by="weight_magnitude", kind="mlp")
    assert frame["address"].tolist() == ["stack.0.mlp", "stack.1.mlp", "stack.2.mlp"]
    assert frame[["attention", "head"]].isna().all(axis=None)
    assert list(frame.columns) == ["address", "stack", "layer", "attention", "head", "score", "rank"]


def test_a_pruned_model_is_ranked_by_its_old_addresses() -> None:
    model = prune(tiny("tiny-timesfm"), ["stack.0.self.head.1", "stack.1.self.head.*", "stack.2.mlp"])
    table = score_table(model, small_suite(), kinds=("head", "mlp"))
    assert table["address"].tolist() == [
        c.address for c in model.anatomy.components() if c.kind == "head"
    ] + [
        "stack.0.mlp",
        "stack.1.mlp",
    ]
    assert table["output_norm"].gt(0).all()
    assert table["mase_change"].notna().all()


# --- mistakes ------------------------------------------------------------------------------------


def test_mistakes_are_one_line() -> None:
    model = tiny("tiny-timesfm")
    with pytest.raises(TspruneError, match="block_influence is a score of mlp and attention and layer, not"):
        rank(model, small_suite(), by="block_influence")
    with pytest.raises(TspruneError, match="stable_rank is a score of head, not of mlp; scores of mlp: we"):
        rank(model, kind="mlp")
    with pytest.raises(TspruneError, match=r"output_norm needs windows: pass a suite, e\.g\. tsprune\.data"):
        rank(model, by="output_norm")
    with pytest.raises(TspruneError, match="unknown kind 'neuron'; one of: head, mlp, attention, layer"):
        rank(model, kind="neuron")  # type: ignore[arg-type]
    with pytest.raises(TspruneError, match="the suite empty has no windows"):
        rank(model, Suite("empty", ()), by="output_norm")
    with pytest.raises(TspruneError, match="first_order needs the gradient of a forecast"):
        rank(tiny("tiny-toto"), small_suite(), by="first_order")
    bare = prune(model, ["stack.*.self"])
    with pytest.raises(TspruneError, match="no component of kind head left"):
        rank(bare)


def test_an_unknown_score_is_an_error() -> None:
    with pytest.raises(
        TspruneError, match="unknown score 'size'; one of: stable_rank, stable_rank_effective, entropic_rank"
    ):
        rank(Toy(), by="size")
