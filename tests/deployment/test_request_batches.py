"""Requests that are forecast together get what each would get alone."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest

from tsprune.deployment import Exported
from tsprune.deployment.request_batches import BusyError, RequestBatches
from tsprune.deployment.self_test import FP32_DISTANCE, quantile_distance
from tsprune.errors import TspruneError
from tsprune.models import Forecaster
from tsprune.models.forecast import Forecast, NotFiniteError

Pair = tuple[Forecaster, Exported]


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def histories(count: int, length: int) -> list[np.ndarray]:  # type: ignore[type-arg]
    rng = np.random.default_rng(count)
    series = [rng.normal(size=length - index).cumsum().astype(np.float32) for index in range(count)]
    series[-1][:2] = np.nan
    return series


async def together(model: Exported, horizons: list[int], **settings: Any) -> tuple[list[Forecast], int]:
    """A request per horizon, all at once, of one to three series; and how many calls that took."""
    chosen = {"window": 0.05, "batch_size": 64, "most_waiting": 1000, **settings}
    async with RequestBatches(model, **chosen) as batches:
        requests = [
            batches.forecast(histories(1 + place % 3, 20 + place), h) for place, h in enumerate(horizons)
        ]
        found = await asyncio.gather(*requests)
        assert (batches.counts.requests, batches.waiting) == (len(horizons), 0)
        return found, batches.counts.batches


def test_results_are_those_of_each_request_alone(exported: Pair) -> None:
    _, model = exported
    horizons = [1 + place % model.horizon for place in range(15)]
    found, calls = run(together(model, horizons))
    assert calls < len(horizons)
    for place, (horizon, forecast) in enumerate(zip(horizons, found, strict=True)):
        alone = model.forecast(histories(1 + place % 3, 20 + place), horizon)
        assert forecast.levels == alone.levels
        assert forecast.quantiles.shape == alone.quantiles.shape
        assert quantile_distance(forecast.quantiles, alone.quantiles) < FP32_DISTANCE


def test_calls_hold_at_most_so_many_series(deployed: Pair) -> None:
    model = deployed[1]
    sizes: list[int] = []
    counting = copy.copy(model)
    counting.forecast = lambda series, horizon: (  # type: ignore[method-assign]
        sizes.append(len(series)) or model.forecast(series, horizon)  # type: ignore[func-returns-value]
    )
    run(together(counting, [2] * 9, batch_size=4))  # 1, 2, 3, 1, 2, 3, ... series
    assert sum(sizes) == 18
    assert 1 < len(sizes) < 9
    assert max(sizes) == 4


def test_a_request_that_fails_fails_alone(deployed: Pair) -> None:
    model = copy.copy(deployed[1])
    usual = model.forecast

    def forecast(series: Any, horizon: int) -> Forecast:
        if any(len(values) == 21 for values in series):
            raise TspruneError("out of memory")
        return usual(series, horizon)

    model.forecast = forecast  # type: ignore[method-assign]

    async def work() -> list[Any]:
        async with RequestBatches(model, window=0.0, batch_size=64, most_waiting=100) as batches:
            requests = (batches.forecast(histories(1, length), 2) for length in range(19, 24))
            return await asyncio.gather(*requests, return_exceptions=True)

    found = run(work())
    assert [isinstance(one, TspruneError) for one in found] == [False, False, True, False, False]


def test_only_steps_that_a_request_asked_for_must_be_finite(deployed: Pair) -> None:
    model, usual = copy.copy(deployed[1]), deployed[1].forecast

    def forecast(series: Any, horizon: int) -> Forecast:
        found = usual(series, horizon)
        found.quantiles[:2, 0, 2:] = np.nan  # of the first two series, beyond two steps
        raise NotFiniteError("not finite", found)

    model.forecast = forecast  # type: ignore[method-assign]

    async def work() -> list[Any]:
        async with RequestBatches(model, window=0.05, batch_size=64, most_waiting=100) as batches:
            requests = (batches.forecast(histories(1, 20), horizon) for horizon in (2, 3, 3))
            return await asyncio.gather(*requests, return_exceptions=True)

    within, beyond, other = run(work())
    assert np.isfinite(within.quantiles).all()
    assert str(beyond) == "the forecast is not finite for series 0"
    assert isinstance(beyond, NotFiniteError)
    assert np.isfinite(other.quantiles).all()


def test_more_than_may_wait_is_refused_at_once(deployed: Pair) -> None:
    async def work() -> list[Any]:
        async with RequestBatches(deployed[1], window=0.0, batch_size=64, most_waiting=2) as batches:
            requests = (batches.forecast(histories(1, 20), 2) for _ in range(5))
            found = await asyncio.gather(*requests, return_exceptions=True)
            assert isinstance(await batches.forecast(histories(2, 20), 2), Forecast)  # there is room again
            return found

    assert [type(one) for one in run(work())] == [Forecast] * 2 + [BusyError] * 3


def test_who_stops_waiting_is_left_out(deployed: Pair) -> None:
    async def work() -> int:
        async with RequestBatches(deployed[1], window=0.0, batch_size=64, most_waiting=9) as batches:
            gone, kept = (asyncio.create_task(batches.forecast(histories(1, 20), 2)) for _ in range(2))
            await asyncio.sleep(0)
            gone.cancel()
            assert isinstance(await kept, Forecast)
            with pytest.raises(asyncio.CancelledError):
                await gone
            return batches.counts.batches

    assert run(work()) <= 2


def test_a_request_that_is_alone_waits_for_nobody(deployed: Pair) -> None:
    async def work() -> None:
        async with RequestBatches(deployed[1], window=60.0, batch_size=64, most_waiting=9) as batches:
            async with asyncio.timeout(20):
                for _ in range(3):
                    await batches.forecast(histories(1, 20), 2)

    run(work())
