"""Recording of activations, and references made of them."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch

from tests.tiny import pristine
from tests.toy import HEAD_DIM, HEADS, WIDTH, Toy
from tsprune.anatomy import Component
from tsprune.errors import TspruneError
from tsprune.hooks.capture import (
    Point,
    Reference,
    default_reference,
    hook_at,
    point_of,
    recording,
    reference,
)

POINT = Point("x", "input")
CONTEXTS = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)


def test_points_of_components() -> None:
    anatomy = Toy().anatomy
    assert point_of(anatomy, Component("stack", 1, "time", 2)) == Point("layers.1.attention.out", "input")
    assert point_of(anatomy, Component("stack", 1, "time")) == Point("layers.1.attention.out", "output")
    assert point_of(anatomy, Component("stack", 1, mlp=True)) == Point("layers.1.mlp", "output")
    with pytest.raises(TspruneError, match=r"stack\.1 is a layer"):
        point_of(anatomy, Component("stack", 1))


def test_recording_sees_every_call_and_both_sides() -> None:
    toy = Toy()
    before, after = Point("layers.0.mlp", "input"), Point("layers.0.mlp", "output")
    with pristine(toy), recording(toy.module, [before, after]) as recorded:
        toy.forecast(list(CONTEXTS), 1)
        toy.forecast(list(CONTEXTS[:2]), 1)
    assert [x.shape for x in recorded[before]] == [(3, 8, WIDTH), (2, 8, WIDTH)]
    mlp = toy.module.layers[0].mlp
    for x, y in zip(recorded[before], recorded[after], strict=True):
        assert torch.equal(mlp(x), y)
        assert not x.requires_grad


@pytest.mark.parametrize("side", ["input", "output"])
def test_a_hook_at_a_point_replaces_the_tensor_there(side: Literal["input", "output"]) -> None:
    toy = Toy()
    mlp, x = toy.module.layers[0].mlp, torch.ones(2, 8, WIDTH)
    with torch.no_grad():
        plain = mlp(x)
        expected = mlp(2 * x) if side == "input" else 2 * plain
        for change, result in ((lambda tensor: 2 * tensor, expected), (lambda tensor: None, plain)):
            handle = hook_at(toy.module, Point("layers.0.mlp", side), change)
            assert torch.equal(mlp(x), result)
            handle.remove()
        assert torch.equal(mlp(x), plain)


def test_recording_ends_with_its_context() -> None:
    toy = Toy()
    with recording(toy.module, [Point("layers.0", "output")]) as recorded:
        pass
    toy.forecast(list(CONTEXTS), 1)
    assert recorded[Point("layers.0", "output")] == []
    with pristine(toy), pytest.raises(ZeroDivisionError), recording(toy.module, [Point("layers.0", "input")]):
        raise ZeroDivisionError
    with (
        pristine(toy),
        pytest.raises(AttributeError),
        recording(toy.module, [Point("layers.0", "input"), Point("layers.9", "input")]),
    ):
        pass


def test_mean_by_hand() -> None:
    values = torch.tensor([[[1.0, 10.0], [2.0, 20.0]], [[3.0, 30.0], [6.0, 60.0]]])  # [M, T, F]
    made = Reference({POINT: {2: values}})
    assert made.mean(POINT, 2).tolist() == [[2.0, 20.0], [4.0, 40.0]]  # per position and feature
    assert made.mean(POINT, 5).tolist() == [3.0, 30.0]  # another length: per feature


def test_mean_over_unlike_lengths_counts_every_position_once() -> None:
    made = Reference({POINT: {1: torch.tensor([[[4.0]]]), 3: torch.tensor([[[0.0], [1.0], [2.0]]])}})
    assert made.mean(POINT, 1).tolist() == [[4.0]]
    assert made.mean(POINT, 2).tolist() == [7 / 4]


def test_sample_takes_rows_of_the_reference() -> None:
    values = torch.arange(10.0).view(5, 2, 1)
    made = Reference({POINT: {2: values}})
    drawn = made.sample(POINT, 2, 200, seed=1)
    assert drawn.shape == (200, 2, 1)
    assert {tuple(row.flatten().tolist()) for row in drawn} == {(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)}
    assert torch.equal(drawn, made.sample(POINT, 2, 200, seed=1))
    assert not torch.equal(drawn, made.sample(POINT, 2, 200, seed=2))


def test_sample_of_fewer_positions_takes_the_last_of_the_next_longer() -> None:
    made = Reference({POINT: {3: torch.tensor([[[1.0], [2.0], [3.0]]]), 9: torch.zeros(1, 9, 1)}})
    assert made.sample(POINT, 2, 1, seed=0).flatten().tolist() == [2.0, 3.0]
    with pytest.raises(TspruneError, match="at least 10 positions; the longest has 9"):
        made.sample(POINT, 10, 1, seed=0)


def test_the_same_seed_takes_the_same_windows_everywhere() -> None:
    toy = Toy()
    windows = np.random.default_rng(2).standard_normal((7, 8)).astype(np.float32)
    record = reference(toy, list(windows))
    mlp, residual = Point("layers.1.mlp", "output"), Point("layers.1.attention.out", "output")
    drawn = record.sample(residual, 8, 3, seed=5), record.sample(mlp, 8, 3, seed=5)
    every = record.at(residual)[8], record.at(mlp)[8]
    rows = [
        [next(i for i in range(7) if torch.equal(values[i], x)) for x in sample]
        for sample, values in zip(drawn, every, strict=True)
    ]
    assert rows[0] == rows[1]


def test_a_reference_serves_every_component() -> None:
    toy = Toy()
    with pristine(toy):
        record = reference(toy, list(CONTEXTS))
    for component in toy.anatomy.expand(toy.anatomy.components()) + toy.anatomy.components("head"):
        (values,) = record.at(point_of(toy.anatomy, component)).values()
        features = HEADS * HEAD_DIM if component.kind == "head" else WIDTH
        assert values.shape == (2 * 3, 8, features)  # forecast, and teacher-forced


def test_a_reference_holds_only_what_was_asked_for() -> None:
    toy = Toy()
    record = reference(toy, list(CONTEXTS), components="stack.0")
    assert set(record.values) == {Point("layers.0.attention.out", "output"), Point("layers.0.mlp", "output")}
    with pytest.raises(TspruneError, match=r"layers\.0\.attention\.out"):
        record.at(Point("layers.0.attention.out", "input"))


def test_the_default_reference_is_of_full_length_and_repeatable() -> None:
    toy = Toy()
    head = toy.anatomy.components("head")[0]
    first, second = (default_reference(toy, [head]) for _ in range(2))
    point = point_of(toy.anatomy, head)
    assert list(first.at(point)) == [toy.context_length]
    assert torch.equal(first.at(point)[8], second.at(point)[8])
