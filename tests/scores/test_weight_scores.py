"""Weight magnitude by hand, and that tables and scores are the same numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.suites import tiny
from tests.toy import HEAD_DIM, HEADS, WIDTH, Toy
from tsprune.anatomy import Component
from tsprune.scores import score_table, stable_ranks
from tsprune.scores.weight_scores import SPECTRUM_SCORES, WEIGHT_SCORES, magnitude, spectra

PART = WIDTH * HEAD_DIM  # weights of one of a head's four matrices
MLP = 2 * 9 * WIDTH


def constant() -> Toy:
    """Layer 0: queries 1, keys 2, values 3, outputs 4; MLP 5. Biases are 100, and count for nothing."""
    toy = Toy()
    layer = toy.module.layers[0]
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            parameter.fill_(100 if name.endswith("bias") else 5)
        rows = torch.arange(1.0, 4.0).repeat_interleave(HEADS * HEAD_DIM)
        layer.attention.qkv.weight.copy_(rows[:, None].expand_as(layer.attention.qkv.weight))
        layer.attention.out.weight.fill_(4)
    return toy


def test_magnitudes_by_hand() -> None:
    toy = constant()
    head = math.sqrt((1 + 4 + 9 + 16) / 4)
    for address in ("stack.0.time.head.1", "stack.0.time"):
        assert magnitude(toy, Component.parse(address)) == pytest.approx(head)
    assert magnitude(toy, Component.parse("stack.0.mlp")) == pytest.approx(5)
    count = 4 * HEADS * PART
    both = math.sqrt((count * head**2 + MLP * 25) / (count + MLP))
    assert magnitude(toy, Component.parse("stack.0")) == pytest.approx(both)


def test_an_mlp_is_all_its_matrices() -> None:
    """TimesFM's MLP is spread over modules of the block; norms are none of its matrices."""
    model = tiny("tiny-timesfm")
    block = model.module.get_submodule("stacked_xf.1")
    weights = torch.cat([block.ff0.weight.flatten(), block.ff1.weight.flatten()]).detach().double()
    expected = float((weights**2).mean().sqrt())
    assert magnitude(model, Component.parse("stack.1.mlp")) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["tiny-timesfm", "tiny-chronos-bolt", "tiny-toto", "toy"])
def test_scores_are_the_tables(name: str) -> None:
    model = Toy() if name == "toy" else tiny(name)
    table = score_table(model, kinds=("head", "mlp")).set_index("address")
    assert set(table.columns) >= {score.name for score in WEIGHT_SCORES}
    heads = table[table["kind"] == "head"]
    for source, names in (
        (stable_ranks(model), ["stable_rank", "stable_rank_effective"]),
        (spectra(model), list(SPECTRUM_SCORES)),
    ):
        np.testing.assert_array_equal(heads[names], source.set_index("address").loc[heads.index, names])
    mlps = table[table["kind"] == "mlp"]
    assert mlps["weight_magnitude"].gt(0).all()
    assert mlps["stable_rank"].isna().all()
