"""A model is one thread's at a time: what another thread does with it never shows in a forecast."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from tests.suites import small_suite
from tests.tiny import TINY, few_samples, full_length, pristine
from tsprune.errors import TspruneError
from tsprune.hooks.ablation import ablate
from tsprune.hooks.attention import watching
from tsprune.hooks.capture import Point, recording
from tsprune.hooks.stream import streams
from tsprune.models import Forecaster, load, turns
from tsprune.replay import Replay
from tsprune.sweeps import sweep

HORIZON = 5


@pytest.fixture(scope="module", params=["tiny-chronos-bolt", "tiny-timesfm", "tiny-toto", "tiny-moirai"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Forecaster:
    directory: Path = tmp_path_factory.mktemp("model")
    TINY[request.param](directory)
    return few_samples(load(str(directory), device="cpu"))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PATIENCE", 0.05)


def in_another_thread(call: Callable[[], object]) -> object:
    """What `call` returns (or raises) in a thread of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result(timeout=60)


def test_sixty_of_sixty_forecasts_are_right_while_another_thread_ablates(model: Forecaster) -> None:
    contexts = full_length(model, 2)
    head = model.anatomy.components("mlp")[0]
    clean = model.forecast(contexts, HORIZON).quantiles
    with ablate(model, head):
        ablated = model.forecast(contexts, HORIZON).quantiles
    assert not np.array_equal(clean, ablated)
    done = threading.Event()
    seen: list[bool] = []

    def ablating() -> None:
        while not done.is_set():
            with ablate(model, head):
                time.sleep(0.001)  # a chance for the other thread
                seen.append(np.array_equal(model.forecast(contexts, HORIZON).quantiles, ablated))

    with pristine(model), ThreadPoolExecutor(1) as pool:
        other = pool.submit(ablating)
        right = [np.array_equal(model.forecast(contexts, HORIZON).quantiles, clean) for _ in range(60)]
        done.set()
        other.result(timeout=60)
    assert sum(right) == 60
    assert len(seen) > 10  # the two took turns
    assert all(seen)


def test_forecasts_of_unlike_horizons_side_by_side(model: Forecaster) -> None:
    """Upstream's pipelines keep the horizon and the context length as settings of the model."""
    contexts = {horizon: full_length(model, 2, seed=horizon) for horizon in (1, 3, 9, 14)}
    expected = {h: model.forecast(x, h).quantiles for h, x in contexts.items()}
    with ThreadPoolExecutor(4) as pool:
        futures = [(h, pool.submit(model.forecast, contexts[h], h)) for _ in range(5) for h in contexts]
        for horizon, future in futures:
            np.testing.assert_array_equal(future.result(timeout=60).quantiles, expected[horizon])


def contexts_that_stay_open(model: Forecaster) -> Iterator[AbstractContextManager[object]]:
    block = model.anatomy.stacks[0].blocks[0]
    yield ablate(model, model.anatomy.components("mlp")[0])
    yield ablate(model, model.anatomy.components("head")[0], mode="mean")
    yield recording(model.module, [Point(block.module, "output")])
    yield watching(model, lambda found: None)
    yield streams(model, model.anatomy.stacks[0])
    yield Replay(model).record("key")


@pytest.mark.usefixtures("impatient")
def test_what_stays_open_is_told_to_the_other_thread(model: Forecaster) -> None:
    """Not a deadlock, although this thread waits for the other one inside of the context."""
    contexts = full_length(model, 1)
    for context in contexts_that_stay_open(model):
        with context:
            with pytest.raises(TspruneError, match="another thread keeps") as caught:
                in_another_thread(lambda: model.forecast(contexts, HORIZON))
            with pytest.raises(TspruneError, match="another thread keeps"):
                in_another_thread(lambda: ablate(model, "*.0.mlp").__enter__())
        assert "\n" not in str(caught.value)
        in_another_thread(lambda: model.forecast(contexts, HORIZON))  # and afterwards it is free


def test_it_waits_for_a_context_that_ends_soon(model: Forecaster) -> None:
    contexts = full_length(model, 1)
    clean = model.forecast(contexts, HORIZON).quantiles
    with ThreadPoolExecutor(1) as pool:
        with ablate(model, model.anatomy.components("mlp")[0]):
            waiting = pool.submit(model.forecast, contexts, HORIZON)
            time.sleep(0.1)
            assert not waiting.done()
        np.testing.assert_array_equal(waiting.result(timeout=60).quantiles, clean)


def test_nested_use_in_one_thread_is_free(model: Forecaster) -> None:
    contexts = full_length(model, 1)
    first, second = model.anatomy.components("mlp")[:2]
    clean = model.forecast(contexts, HORIZON).quantiles
    with ablate(model, first), ablate(model, second), watching(model, lambda found: None):
        model.forecast(contexts, HORIZON)
        model.teacher_forced(contexts)
    np.testing.assert_array_equal(model.forecast(contexts, HORIZON).quantiles, clean)


def test_sweeps_in_two_threads(model: Forecaster) -> None:
    suite = small_suite()
    alone = sweep(model, suite, kind="mlp", batch_size=4)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(sweep, model, suite, kind="mlp", batch_size=4) for _ in range(2)]
        for future in both:
            assert future.result(timeout=120).frame.equals(alone.frame)


def suspended(model: Forecaster) -> Iterator[np.ndarray]:
    with ablate(model, model.anatomy.components("mlp")[0]):
        while True:
            yield model.forecast(full_length(model, 1), HORIZON).quantiles


def test_a_generator_may_be_closed_by_another_thread(model: Forecaster) -> None:
    with pristine(model):
        generator = suspended(model)
        next(generator)
        in_another_thread(generator.close)  # type: ignore[attr-defined]
        in_another_thread(lambda: model.forecast(full_length(model, 1), HORIZON))


@pytest.mark.usefixtures("impatient")
def test_a_generator_that_another_thread_goes_on_with_is_no_silent_mistake(model: Forecaster) -> None:
    generator = suspended(model)
    next(generator)
    with pytest.raises(TspruneError, match="another thread keeps"):
        in_another_thread(lambda: next(generator))


# --- without a model -----------------------------------------------------------------------------


def test_two_threads_that_wait_for_each_other_are_told_at_once() -> None:
    one, other = nn.Linear(1, 1), nn.Linear(1, 1)
    started, errors = threading.Barrier(2), []

    def crossing(first: nn.Module, second: nn.Module) -> None:
        with turns.alone(first, "first", keeps=True):
            started.wait(timeout=10)
            try:
                with turns.alone(second, "second"):
                    pass
            except TspruneError as error:
                errors.append(str(error))

    begin = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(crossing, one, other), pool.submit(crossing, other, one)]:
            future.result(timeout=60)
    assert len(errors) == 1  # the other one then had its turn
    assert "wait for each other" in errors[0]
    assert time.monotonic() - begin < turns.PATIENCE / 2


@pytest.mark.usefixtures("impatient")
def test_a_forecast_is_waited_for_as_long_as_it_takes() -> None:
    module = nn.Linear(1, 1)
    inside = threading.Event()

    def long_forecast() -> None:
        with turns.alone(module, "model"), turns.alone(module, "model", keeps=True):
            inside.set()
            time.sleep(4 * turns.PATIENCE)

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(long_forecast)
        assert inside.wait(timeout=10)
        with turns.alone(module, "model"):
            pass
        other.result(timeout=10)


def test_first_come_first_served() -> None:
    module, order = nn.Linear(1, 1), list[int]()

    def turn(number: int) -> None:
        with turns.alone(module, "model"):
            order.append(number)

    with ThreadPoolExecutor(5) as pool:
        with turns.alone(module, "model"):
            futures = []
            for number in range(5):
                futures.append(pool.submit(turn, number))
                time.sleep(0.03)
        for future in futures:
            future.result(timeout=10)
    assert order == [0, 1, 2, 3, 4]
