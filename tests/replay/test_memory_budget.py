"""Estimates of memory, and going on with half when it runs out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from tests.suites import configuration, tiny
from tests.sweeping import assert_equal
from tests.toy import Toy
from tsprune.arguments import UNLIMITED
from tsprune.data import Suite
from tsprune.errors import TspruneError
from tsprune.hooks.ablation import Ablation
from tsprune.memory import in_parts
from tsprune.replay import Replay, record_bytes
from tsprune.sweeps import make_plan, run

WINDOWS = list(np.random.default_rng(0).standard_normal((11, 8)).astype(np.float32))


@contextmanager
def memory_for(toy: Toy, windows: int, error: Exception | None = None) -> Iterator[list[int]]:
    """The toy's network runs out of memory on larger batches; yields the sizes it was tried on."""
    tried: list[int] = []

    def allocate(_module: torch.nn.Module, args: tuple[torch.Tensor]) -> None:
        tried.append(len(args[0]))
        if len(args[0]) > windows:
            raise error or torch.cuda.OutOfMemoryError("out of memory")

    handle = toy.module.register_forward_pre_hook(allocate)
    try:
        yield tried
    finally:
        handle.remove()


def test_the_record_of_a_batch_is_as_large_as_estimated() -> None:
    toy = Toy()
    estimate = record_bytes(toy, WINDOWS[:2], 1)
    replay = Replay(toy)
    with replay.record("all"):
        toy.forecast(WINDOWS, 1)
    assert replay.nbytes == estimate * len(WINDOWS)  # the toy has nothing that all windows share


def test_a_budget_by_the_estimate_keeps_everything_and_less_does_not() -> None:
    toy = Toy()
    needed = record_bytes(toy, WINDOWS[:3], 1) * len(WINDOWS)
    held = []
    for memory in (needed, needed - 1, 0):
        replay = Replay(toy, memory)
        with replay.record("all"):
            toy.forecast(WINDOWS, 1)
        held.append(replay.nbytes)
    assert held[0] == needed > held[1] > held[2] == 0


LONG = Suite("long", (configuration("a/D/short", [2000] * 30, horizon=5),))


@pytest.mark.parametrize("name", ["tiny-timesfm", "tiny-chronos-bolt"])
def test_batches_are_as_large_as_whole_records_fit(name: str) -> None:
    model = tiny(name)
    (contexts,) = (c.contexts for c in LONG.configurations)
    each = record_bytes(model, [x[-model.context_length :] for x in contexts[:2]], 5)
    memory = 12 * each + each // 2
    batches = make_plan(model, LONG, [], batch_size=64, memory=memory).batches
    assert [len(batch) for batch in batches] == [12, 12, 6]
    held = []
    for limit in (memory, UNLIMITED):
        replay = Replay(model, limit)
        with replay.record("first"):
            model.forecast(batches[0].contexts, 5)
        held.append(replay.nbytes)
    assert held[0] == held[1]
    # so few windows would be slower than an incomplete record
    assert len(make_plan(model, LONG, [], batch_size=64, memory=7 * each).batches) == 1


def test_a_sweep_in_batches_by_memory_is_that_without_replay() -> None:
    model = tiny("tiny-timesfm")
    (contexts,) = (c.contexts for c in LONG.configurations)
    memory = 10 * record_bytes(model, [x[-model.context_length :] for x in contexts[:2]], 5)
    ablations = [Ablation((c,)) for c in model.anatomy.components("mlp")]
    found = [run(model, LONG, ablations, memory=memory, replay=replay) for replay in (True, False)]
    assert_equal(*found)


@pytest.mark.parametrize(
    "error",
    [
        None,
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: not enough memory: you tried"),
    ],
    ids=["cuda", "python", "cpu"],
)
def test_halving_until_it_fits(error: Exception | None) -> None:
    toy = Toy()
    plain = toy.forecast(WINDOWS, 1).quantiles
    with memory_for(toy, 3, error) as tried:
        parts = list(in_parts(lambda part: toy.forecast(part, 1).quantiles, WINDOWS))
    assert [(part.start, part.stop) for part, _ in parts] == [
        (0, 2),
        (2, 4),
        (4, 6),
        (6, 8),
        (8, 10),
        (10, 11),
    ]
    assert tried == [11, 5, 2, 2, 2, 2, 2, 1]  # the size that fits is remembered
    np.testing.assert_allclose(np.concatenate([found for _, found in parts]), plain, rtol=1e-5)


def test_a_size_is_kept_to_while_it_fits() -> None:
    toy = Toy()
    with memory_for(toy, 100) as tried:
        parts = list(in_parts(lambda part: toy.forecast(part, 1), WINDOWS, size=4))
    assert tried == [4, 4, 3]
    assert [part.stop for part, _ in parts] == [4, 8, 11]


def test_nothing_to_do() -> None:
    assert list(in_parts(len, [])) == []


def test_not_even_one_window_fits() -> None:
    toy = Toy()
    with memory_for(toy, 0), pytest.raises(TspruneError, match="single window"):
        list(in_parts(lambda part: toy.forecast(part, 1), WINDOWS))


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    toy = Toy()
    with memory_for(toy, 3, RuntimeError("shape mismatch")), pytest.raises(RuntimeError, match="shape"):
        list(in_parts(lambda part: toy.forecast(part, 1), WINDOWS))


def test_a_size_below_one() -> None:
    with pytest.raises(TspruneError, match="at least 1"):
        list(in_parts(len, WINDOWS, size=0))


def test_the_frames_of_a_failed_attempt_are_gone() -> None:
    """Their tensors occupy the memory that the next attempt needs."""

    class Tracked:
        alive = 0

        def __init__(self) -> None:
            Tracked.alive += 1

        def __del__(self) -> None:
            Tracked.alive -= 1

    seen = []

    def work(part: list[int]) -> int:
        seen.append(Tracked.alive)
        large = Tracked()
        if len(part) > 1:
            raise torch.cuda.OutOfMemoryError
        del large
        return len(part)

    assert [result for _, result in in_parts(work, list(range(3)))] == [1, 1, 1]
    assert seen == [0] * 4
