"""Checkpoints against published numbers: right ones hold, and the wrong ones are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
import torch
from chronos.chronos_bolt import ChronosBoltModelForForecasting
from transformers.utils import logging

from pretrain.families import chronos_bolt
from tests.suites import tiny
from tsprune.data import gift_eval
from tsprune.errors import TspruneError
from tsprune.evaluation import evaluate
from tsprune.models import Forecaster, load
from tsprune.scores import stable_ranks
from tsprune.verification import (
    RANK_COLUMNS,
    SCORE_COLUMNS,
    compare_scores,
    compare_stable_ranks,
    model_in_table,
    read_table,
)

NAME = "amazon/chronos-bolt-base"
LAYERS, HEADS, WIDTH = 12, 12, 384  # half of its width
HEAD_DIM = WIDTH // HEADS
DENSE = (0, 7)  # layers whose heads are checked by SVDs of whole matrices


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights with the layers and heads of Chronos-Bolt-base's decoder; the rest is cut short.

    Every head's queries fade over their dimensions at a rate of its own, so that stable ranks range
    from nearly 1 to tens, as those of trained models do.
    """
    size = chronos_bolt.Size(width=WIDTH, layers=1, heads=HEADS, hidden=32, patch=4, horizon=8)
    config = chronos_bolt.config(size)
    config.num_decoder_layers = LAYERS
    torch.manual_seed(0)
    model = ChronosBoltModelForForecasting(config)
    rates = torch.rand(LAYERS, HEADS) ** 2
    with torch.no_grad():
        for layer, block in enumerate(model.decoder.block):
            fading = torch.exp(-rates[layer][:, None] * torch.arange(HEAD_DIM))
            block.layer[1].EncDecAttention.q.weight.mul_(fading.view(-1, 1))
    directory = tmp_path_factory.mktemp("models") / "chronos-bolt-base"
    logging.disable_progress_bar()
    model.save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def bolt(checkpoint: Path) -> Forecaster:
    return load(str(checkpoint), device="cpu")


def cross_weights(bolt: Forecaster, layer: int, head: int) -> tuple[np.ndarray, np.ndarray]:
    """W_Q and W_K of one head, float64 [WIDTH, HEAD_DIM], taken from the module by hand."""
    attention = bolt.module.decoder.block[layer].layer[1].EncDecAttention
    rows = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
    query, key = (part.weight[rows].detach().double().numpy().T for part in (attention.q, attention.k))
    return query, key


def by_dense_svd(query: np.ndarray, key: np.ndarray) -> float:
    values = np.linalg.svd(query @ key.T, compute_uv=False)
    return float((values**2).sum() / values[0] ** 2)


def by_gram_matrices(query: np.ndarray, key: np.ndarray) -> float:
    """||A||_F^2 = tr(Q'Q K'K), and ||A||_2^2 is the largest x with (K'K) v = x (Q'Q)^-1 v."""
    left, right = query.T @ query, key.T @ key
    root = scipy.linalg.cholesky(right, lower=True)
    return float(np.trace(left @ right) / scipy.linalg.eigvalsh(root.T @ left @ root)[-1])


@pytest.fixture(scope="module")
def table(bolt: Forecaster) -> pd.DataFrame:
    """As published: all heads of decoder cross-attention, four decimals, other models below."""
    rows = []
    for layer in range(LAYERS):
        for head in range(HEADS):
            query, key = cross_weights(bolt, layer, head)
            value = by_gram_matrices(query, key)
            if layer in DENSE:
                assert by_dense_svd(query, key) == pytest.approx(value, rel=1e-8)
            rows.append((NAME, "cross", layer, head, round(value, 4)))
    others = [("amazon/chronos-t5-base", "cross", 0, 0, 2.0), ("google/timesfm-2.5", "self", 0, 0, 3.0)]
    return pd.DataFrame(rows + others, columns=list(RANK_COLUMNS))


def damaged(table: pd.DataFrame, factors: dict[tuple[int, int], float]) -> pd.DataFrame:
    """`table` with the stable rank of some heads (layer, head) of the first model multiplied."""
    changed = table.copy()
    for (layer, head), factor in factors.items():
        row = (changed["checkpoint"] == NAME) & (changed["layer"] == layer) & (changed["head"] == head)
        changed.loc[row, "stable_rank"] *= factor
    return changed


def test_the_right_table_holds(bolt: Forecaster, table: pd.DataFrame) -> None:
    found = compare_stable_ranks(bolt, table)
    assert found.holds
    assert found.model == NAME  # by the directory's name
    assert len(found.heads) == found.total == LAYERS * HEADS
    assert found.worst["difference"] < 6e-5  # what rounding to four decimals leaves, no more
    assert found.correlation > 0.9999
    assert found.heads["reference"].max() > 5 * found.heads["reference"].min()
    assert found.explanation == ""


def test_damaged_heads_are_found_worst_first(bolt: Forecaster, table: pd.DataFrame) -> None:
    factors = {(3, 5): 1.02, (0, 0): 0.8, (11, 11): 1.004}
    found = compare_stable_ranks(bolt, damaged(table, factors))
    assert not found.holds
    expected = ["decoder.0.cross.head.0", "decoder.3.cross.head.5", "decoder.11.cross.head.11"]
    assert found.wrong["address"].tolist() == expected
    assert found.worst["address"] == expected[0]
    assert found.worst["difference"] == pytest.approx(0.25, rel=1e-3)  # 1 / 0.8 - 1
    assert compare_stable_ranks(bolt, damaged(table, factors), tolerance=0.26).holds


def test_exchanged_heads_are_found(bolt: Forecaster, table: pd.DataFrame) -> None:
    changed = table.copy()
    is_other = changed["checkpoint"] != NAME
    changed["head"] = changed["head"].where(is_other, HEADS - 1 - changed["head"])
    found = compare_stable_ranks(bolt, changed)
    assert not found.holds
    assert found.correlation < 0.5
    assert len(found.wrong) > 0.9 * LAYERS * HEADS


def test_self_attention_is_not_taken_for_cross_attention(bolt: Forecaster, table: pd.DataFrame) -> None:
    own = table.assign(attention="self", stack="decoder")
    assert len(compare_stable_ranks(bolt, own).wrong) > 0.9 * LAYERS * HEADS  # some are alike by chance
    with pytest.raises(TspruneError, match="encoder and decoder; add a column stack"):
        compare_stable_ranks(bolt, table.assign(attention="self"))


def test_a_head_that_the_table_does_not_know_is_wrong(bolt: Forecaster, table: pd.DataFrame) -> None:
    unknown = damaged(table, {(2, 2): float("nan")})
    found = compare_stable_ranks(bolt, unknown)
    assert found.wrong["address"].tolist() == ["decoder.2.cross.head.2"]
    partly = compare_stable_ranks(bolt, table[(table["layer"] != 2) | (table["head"] > 0)])
    assert partly.holds
    assert (len(partly.heads), partly.total) == (LAYERS * HEADS - 1, LAYERS * HEADS)


def test_another_models_table_is_refused(bolt: Forecaster, table: pd.DataFrame) -> None:
    with pytest.raises(TspruneError, match=r"self-attention.*timesfm.*--model|add a column"):
        compare_stable_ranks(bolt, table, "google/timesfm-2.5")
    with pytest.raises(TspruneError, match="head 12 of"):
        compare_stable_ranks(bolt, table.assign(head=table["head"] + 1))
    with pytest.raises(TspruneError, match="more than once"):
        compare_stable_ranks(bolt, pd.concat([table, table]))


@pytest.mark.parametrize("name", ["tiny-toto", "tiny-chronos2", "tiny-timesfm", "tiny-moirai"])
def test_what_published_tables_call_self_attention(name: str) -> None:
    """Attention over time in Chronos-2, over time or variates in Toto."""
    model = tiny(name)
    ranks = stable_ranks(model)
    ranks = ranks[ranks["attention"] != "group"]
    table = ranks.assign(checkpoint="some/model", attention="self")[list(RANK_COLUMNS)]
    found = compare_stable_ranks(model, table, "some/model")
    assert found.holds
    assert found.heads["address"].tolist() == ranks["address"].tolist()


def test_a_table_of_mixed_heads_is_explained() -> None:
    """The published ranks of Toto: rows of the fused projection cut as if heads were contiguous."""
    model = tiny("tiny-toto")
    rows = []
    for layer, block in enumerate(model.module.transformer.layers):
        fused = block.attention.wQKV.weight.detach().double().numpy()
        width, heads = fused.shape[1], block.attention.num_heads
        size = width // heads
        for head in range(heads):
            query = fused[head * size : (head + 1) * size].T
            key = fused[width + head * size : width + (head + 1) * size].T
            rows.append(("some/toto", "self", layer, head, by_dense_svd(query, key)))
    table = pd.DataFrame(rows, columns=list(RANK_COLUMNS))
    found = compare_stable_ranks(model, table, "some/toto")
    assert not found.holds
    assert found.explanation.startswith("expected for toto: ")
    assert "cut so, this checkpoint gives the table" in found.explanation
    assert "\n" not in found.explanation
    table["stable_rank"] *= 1.5
    assert "off the table by up to 33 %" in compare_stable_ranks(model, table, "some/toto").explanation


# --- names and files -----------------------------------------------------------------------------

PUBLISHED = [
    "chronos-2", "chronos-bolt-base", "chronos-bolt-small", "moirai-1.1-R-base", "moirai-1.1-R-small",
    "moirai-2.0", "seasonal_naive", "naive", "timesfm-2.5-200m", "toto-open-base-1.0",
]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("chronos-2", "chronos-2"),
        ("amazon/chronos-bolt-base", "chronos-bolt-base"),
        ("/models/chronos-bolt-small/", "chronos-bolt-small"),
        ("Salesforce/moirai-2.0-R-small", "moirai-2.0"),
        ("google/timesfm-2.5-200m-pytorch", "timesfm-2.5-200m"),
        ("Datadog/Toto-Open-Base-1.0", "toto-open-base-1.0"),
        ("seasonal-naive", "seasonal_naive"),
    ],
)
def test_a_model_is_found_by_its_checkpoints_name(asked: str, name: str) -> None:
    assert model_in_table(asked, PUBLISHED) == name


@pytest.mark.parametrize("asked", ["bundled:chronos-bolt", "bundled:x", "/cache/4f2a91", "moirai-1.1-R"])
def test_an_ambiguous_name_is_refused_with_the_names(asked: str) -> None:
    with pytest.raises(TspruneError, match="--model: chronos-2, chronos-bolt-base") as error:
        model_in_table(asked, PUBLISHED)
    assert "\n" not in str(error.value)


def test_tables_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for content, reason in (
        ("a,b\n1,2\n", "no column checkpoint, attention, layer, head, stable_rank"),
        ("checkpoint,attention,layer,head,stable_rank\nx,self,0.5,0,1\n", "layer .* whole numbers"),
        ("checkpoint,attention,layer,head,stable_rank\nx,self,0,-1,1\n", "head .* whole numbers"),
        ("checkpoint,attention,layer,head,stable_rank\nx,self,0,0,low\n", "must hold numbers"),
        ("", "not a CSV table"),
    ):
        path.write_text(content)
        with pytest.raises(TspruneError, match=reason):
            read_table(path, RANK_COLUMNS)
    path.write_bytes(bytes(range(256)))
    with pytest.raises(TspruneError, match="not a CSV table"):
        read_table(path, RANK_COLUMNS)
    with pytest.raises(TspruneError, match="there is no table"):
        read_table(tmp_path / "absent.csv", RANK_COLUMNS)


# --- scores --------------------------------------------------------------------------------------


def test_published_scores_of_seasonal_naive_hold(shared: Path) -> None:
    """The one published row that needs no checkpoint: equal to the last published digit."""
    table = read_table(shared / "data" / "published_gift_eval_scores.csv", SCORE_COLUMNS)
    names = ["ett1/H/short", "us_births/D/short"]
    scores = evaluate("seasonal-naive", gift_eval(shared / "data" / "gift_eval", names)).frame
    found = compare_scores(scores, table, "seasonal-naive", tolerance=1e-6)
    assert found.holds
    assert found.configurations["configuration"].tolist() == scores["configuration"].tolist()
    other = compare_scores(scores, table, "chronos-2")
    assert not other.holds
    assert len(other.wrong) == 2


def test_scores_by_hand() -> None:
    published = [("a", "m", 1.0, 0.1), ("b", "m", 2.0, 0.2), ("a", "n", 9.0, 9.0)]
    table = pd.DataFrame(published, columns=list(SCORE_COLUMNS))
    evaluated = [("b", 2.02, 0.2), ("c", 7.0, 7.0), ("a", 1.0, 0.09)]
    scores = pd.DataFrame(evaluated, columns=["configuration", "MASE", "CRPS"])
    found = compare_scores(scores, table, "m", tolerance=0.02)
    assert found.missing == ("c",)
    assert found.configurations["MASE_difference"].tolist() == pytest.approx([0.01, 0.0])
    assert found.configurations["CRPS_difference"].tolist() == pytest.approx([0.0, -0.1])
    assert found.wrong["configuration"].tolist() == ["a"]
    assert not found.holds
    assert compare_scores(scores.iloc[:2], table, "m").holds
    assert not compare_scores(scores.assign(MASE=np.nan), table, "m").holds
    with pytest.raises(TspruneError, match="no configuration"):
        compare_scores(scores.iloc[1:2], table, "m")
