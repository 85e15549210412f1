"""What the recipe of Chronos-T5 starts from: an ordered vocabulary, and heads that look around."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers import T5ForConditionalGeneration

from pretrain.families.chronos_t5 import ChronosT5Objective, Size, pieces, placed, refine

SIZE = Size(
    width=64, layers=2, heads=4, hidden=24, tokens=64, context=48, horizon=16, buckets=64, distance=64
)


@pytest.fixture(scope="module")
def model() -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    built = ChronosT5Objective(SIZE).build()
    assert isinstance(built, T5ForConditionalGeneration)
    return built


def test_pieces_are_cut_from_the_end_of_a_window() -> None:
    windows = np.arange(20, dtype=np.float32).reshape(2, 10)
    assert pieces(windows, 4).tolist() == [[2, 3, 4, 5], [6, 7, 8, 9], [12, 13, 14, 15], [16, 17, 18, 19]]
    assert pieces(windows, 10).tolist() == windows.tolist()


def test_values_near_each_other_look_alike(model: T5ForConditionalGeneration) -> None:
    values = torch.nn.functional.normalize(model.shared.weight[3:].detach())
    similarity = values @ values.T
    near, far = similarity.diagonal(1), similarity.diagonal(20)
    assert near.mean() > 0.15 + far.mean()


def test_the_first_bin_is_the_token_that_upstream_gives_the_lowest_value(
    model: T5ForConditionalGeneration,
) -> None:
    tokenizer = ChronosT5Objective(SIZE)._tokenizer(SIZE.horizon)
    assert len(model.shared.weight) - len(tokenizer.centers) == 3
    tokens, _ = (
        ChronosT5Objective(SIZE)
        ._tokenizer(2)
        .label_input_transform(torch.tensor([[-99.0, 99.0]]), torch.ones(1))
    )
    assert tokens[0, :2].tolist() == [3, len(model.shared.weight) - 1]


@pytest.mark.parametrize(("head", "offset"), [(0, 1), (1, -1)])
def test_encoder_heads_start_by_looking_at_one_neighbour(
    model: T5ForConditionalGeneration, head: int, offset: int
) -> None:
    bias = model.encoder.block[0].layer[0].SelfAttention.compute_bias(12, 12)[0, head]
    sought = torch.arange(12) + offset
    inside = (sought >= 0) & (sought < 12)
    assert (bias.argmax(dim=-1)[inside] == sought[inside]).all()


def test_decoder_heads_start_with_the_previous_value_and_a_decay(model: T5ForConditionalGeneration) -> None:
    bias = model.decoder.block[0].layer[0].SelfAttention.compute_bias(12, 12)[0]
    assert int(bias[0, 7, :8].argmax()) == 6
    assert (bias[1, 7, :8].diff() > 0).all()


def test_finer_bins_look_as_the_coarse_bins_around_them_do() -> None:
    special = torch.tensor([[7.0], [8.0], [9.0]])
    refined = refine(
        torch.cat([special, torch.tensor([[0.0], [1.0], [5.0], [2.0]])]), torch.linspace(-15, 15, 7)
    )
    assert refined.flatten().tolist() == [7, 8, 9, 0, 0.5, 1, 3, 5, 3.5, 2]


def test_the_fine_run_starts_with_the_forecasts_of_the_coarse_one() -> None:
    torch.manual_seed(0)
    sizes = [dataclasses.replace(SIZE, tokens=tokens) for tokens in (64, 64 + 60)]  # 61 and 121 bins
    coarse, fine = (ChronosT5Objective(size) for size in sizes)
    before, after = coarse.build().eval(), fine.build().eval()
    after.load_state_dict(fine.adopt(before.state_dict()))
    values = coarse._tokenizer(16).centers[torch.randint(20, 40, (2, 48))]  # bins of both
    logits = []
    for objective, model in ((coarse, before), (fine, after)):
        tokens, mask, _ = objective._tokenizer(16)._input_transform(values, torch.ones(2))
        output = model(input_ids=tokens, attention_mask=mask, decoder_input_ids=torch.zeros(2, 1).long())
        logits.append(output.logits[:, 0, 3:].detach())
    torch.testing.assert_close(logits[1][:, ::2], logits[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("way", "holds"),
    [
        (0, lambda placed, x: np.array_equal(placed, x)),
        (2, lambda placed, x: (placed.min(axis=1) == 0).all()),
        (3, lambda placed, x: (abs(placed.mean(axis=1)) >= 2.9).all()),
    ],
    ids=["around zero", "on zero", "far from zero"],
)
def test_windows_are_placed_where_they_should(
    way: int, holds: Callable[[np.ndarray, np.ndarray], bool]
) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 32)).astype(np.float32)
    x -= x.mean(axis=1, keepdims=True)
    often = tuple(float(i == way) for i in range(4))
    moved = placed(x, often, rng)
    assert holds(moved, x)
    np.testing.assert_allclose(np.diff(moved), np.diff(x), atol=1e-4)  # placing moves, nothing else
