"""Requests that arrive together, forecast together: one call of the model, its results split."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from tsprune.deployment.exported import Exported
from tsprune.errors import TspruneError
from tsprune.models.forecast import Forecast, NotFiniteError, with_gaps

_Series = Sequence[NDArray[np.float32]]


class BusyError(TspruneError):
    """More is waiting than can be answered soon."""


@dataclasses.dataclass(eq=False)
class _Waiting:
    series: _Series
    horizon: int
    answer: asyncio.Future[Forecast]


@dataclasses.dataclass
class Counts:
    """Requests so far, their series, and calls of the model."""

    requests: int = 0
    series: int = 0
    batches: int = 0


class RequestBatches:
    """Collects the requests of an event loop into calls of one model, which runs in a thread of its own.

    Requests that arrive during a call are the next one. A request that is alone waits for nobody. Where
    the last call had several, the next one waits until as many are there, but no longer than `window`.

    model : forecasts, in calls for horizons that its graph computes alike (`Exported.passes`)
    window : seconds
    batch_size : series in one call, unless a single request has more
    most_waiting : series that may wait; beyond that `forecast` raises BusyError

    Attributes
    ----------
    counts : of requests and calls so far
    waiting : series of requests that no call has begun with
    """

    def __init__(self, model: Exported, *, window: float, batch_size: int, most_waiting: int) -> None:
        self.counts = Counts()
        self._model, self._window, self._batch_size = model, window, batch_size
        self._most_waiting = most_waiting
        self._waiting: list[_Waiting] = []
        self.waiting = 0
        self._arrival = asyncio.Event()
        self._usual = 1  # requests of the last call
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="forecast")
        self._work: asyncio.Task[None] | None = None

    async def __aenter__(self) -> RequestBatches:
        self._work = asyncio.create_task(self._serve())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._work is not None
        self._work.cancel()
        with suppress(asyncio.CancelledError):
            await self._work
        self._thread.shutdown()
        for one in self._waiting:
            one.answer.cancel()

    async def forecast(self, series: _Series, horizon: int) -> Forecast:
        """The model's forecast of B series.

        Raises BusyError, NotFiniteError for the first series whose forecast is not finite, and TspruneError
        where the model does.
        """
        if self.waiting + len(series) > self._most_waiting:
            raise BusyError("too many series are waiting; try again later")
        one = _Waiting(series, horizon, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        self.waiting += len(series)
        self._arrival.set()
        self.counts.requests += 1
        self.counts.series += len(series)
        return await one.answer

    async def _serve(self) -> None:
        while True:
            await self._arrival.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._window):
                    await self._as_many_as_usual()
            batch = self._taken()
            self._usual = len(batch)
            await self._answered(batch)
            if not self._waiting:
                self._arrival.clear()

    async def _as_many_as_usual(self) -> None:
        while len(self._waiting) < self._usual and self.waiting < self._batch_size:
            self._arrival.clear()
            await self._arrival.wait()

    def _taken(self) -> list[_Waiting]:
        """The first request, and those that fit into one call with it; they wait no longer."""
        passes = self._model.passes(self._waiting[0].horizon)
        batch: list[_Waiting] = []
        size = 0
        for one in self._waiting:
            fits = not batch or size + len(one.series) <= self._batch_size
            if fits and self._model.passes(one.horizon) == passes:
                batch.append(one)
                size += len(one.series)
        self._waiting = [one for one in self._waiting if one not in batch]
        self.waiting -= size
        return batch

    async def _answered(self, batch: list[_Waiting]) -> None:
        """Forecasts a batch; after an error each request by itself, so that it fails alone."""
        batch = [one for one in batch if not one.answer.done()]
        if not batch:
            return
        try:
            forecast = await self._called(batch)
        except Exception as error:
            if len(batch) == 1:
                batch[0].answer.set_exception(error)
                return
            for one in batch:
                await self._answered([one])
            return
        finite, start = forecast.finite(), 0
        for one in batch:
            rows = slice(start, start := start + len(one.series))
            if not one.answer.done():
                _settle(one.answer, forecast.select(rows).until(one.horizon), bool(finite[rows].all()))

    async def _called(self, batch: Sequence[_Waiting]) -> Forecast:
        series = [values for one in batch for values in one.series]
        horizon = max(one.horizon for one in batch)
        self.counts.batches += 1
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, with_gaps, self._model, series, horizon)


def _settle(answer: asyncio.Future[Forecast], forecast: Forecast, known_finite: bool) -> None:
    """known_finite : also of the steps that only others of the call asked for"""
    if known_finite or (finite := forecast.finite()).all():
        answer.set_result(forecast)
    else:
        where = int(finite.argmin())
        answer.set_exception(NotFiniteError(f"the forecast is not finite for series {where}", forecast))
