"""`serve`: an exported model behind HTTP, with requests that arrive together forecast together."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from tsprune.deployment.exported import Exported
from tsprune.deployment.forecast_requests import Limits, answer, read_request
from tsprune.deployment.request_batches import BusyError, RequestBatches
from tsprune.errors import TspruneError, one_line
from tsprune.http_server import RefusedError, body_of, not_installed, run_until_stopped
from tsprune.models.forecast import NotFiniteError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

_BODY_SECONDS = 30.0  # for the body of a request to arrive
_STOP_SECONDS = 30  # for requests that are answered when the server stops


@dataclasses.dataclass(frozen=True)
class Serving:
    """How requests are answered.

    window : seconds that requests wait for others at most (see `RequestBatches`)
    batch_size : series that are forecast together
    most_waiting : series that may wait; requests beyond are answered with 503
    """

    limits: Limits
    window: float = 0.005
    batch_size: int = 64
    most_waiting: int = 4096


def application(model: Exported, serving: Serving) -> Starlette:
    """The ASGI application: POST /forecast and GET /health (see docs/guides/deploy.md).

    Raises TspruneError if Starlette or orjson are not installed.
    """
    try:
        import orjson  # noqa: F401  # of requests and answers
        from starlette.applications import Starlette
        from starlette.exceptions import HTTPException
        from starlette.responses import Response
        from starlette.routing import Route
    except ImportError:
        raise not_installed("serve", "Starlette and orjson") from None

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with RequestBatches(
            model,
            window=serving.window,
            batch_size=serving.batch_size,
            most_waiting=serving.most_waiting,
        ) as batches:
            app.state.batches = batches
            yield

    def as_json(content: bytes, status: int = 200) -> Response:
        return Response(content, status, media_type="application/json")

    async def forecast(request: Request) -> Response:
        try:
            return as_json(await _forecast(request, request.app.state.batches, serving.limits))
        except RefusedError as refused:
            return as_json(_error(refused), refused.status)

    async def health(request: Request) -> Response:
        return as_json(_health(model, request.app.state.batches, serving.limits))

    async def other(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return as_json(_error(f"{error.detail}; there are POST /forecast and GET /health"), error.status_code)

    async def fault(_: Request, error: Exception) -> Response:
        return as_json(_error(f"{type(error).__name__}: {one_line(error, 200)}"), 500)

    return Starlette(
        routes=[
            Route("/forecast", forecast, methods=["POST"]),
            Route("/health", health, methods=["GET"]),
        ],
        exception_handlers={HTTPException: other, Exception: fault},
        lifespan=lifespan,
    )


async def _forecast(request: Request, batches: RequestBatches, limits: Limits) -> bytes:
    body = await body_of(request, limits.body, _BODY_SECONDS, "; send fewer series at once")
    try:
        wanted = read_request(body, limits)
    except TspruneError as error:
        raise RefusedError(400, error) from None
    try:
        forecast = await batches.forecast(wanted.series, wanted.horizon)
    except BusyError as error:
        raise RefusedError(503, error) from None
    except NotFiniteError as error:
        raise RefusedError(422, error) from None
    except TspruneError as error:
        raise RefusedError(500, error) from None
    return answer(forecast, wanted.levels)


def _error(reason: object) -> bytes:
    return json.dumps({"error": one_line(reason)}).encode()


def _health(model: Exported, batches: RequestBatches, limits: Limits) -> bytes:
    about = model.description
    names = ("name", "family", "precision", "parameters", "context_length", "levels")
    content = {
        "status": "ok",
        "model": {name: getattr(about, name) for name in names},
        "limits": dataclasses.asdict(limits),
        "served": dataclasses.asdict(batches.counts) | {"waiting": batches.waiting},
    }
    return json.dumps(content).encode()


def serve(
    model: Exported, serving: Serving, where: socket.socket, *, ready: Callable[[], None] = lambda: None
) -> None:
    """Answers requests on a socket until SIGINT or SIGTERM; those that have begun are answered first.

    ready : called when requests are answered

    Raises TspruneError if Starlette, orjson or uvicorn are not installed.
    """
    app = application(model, serving)
    run_until_stopped(app, where, "serve", stop_seconds=_STOP_SECONDS, ready=ready)
