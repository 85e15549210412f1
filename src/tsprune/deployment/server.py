"""`serve`: an exported model behind HTTP, with requests that arrive together forecast together."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

from tsprune.deployment.exported import Exported
from tsprune.deployment.forecast_requests import Limits, answer, read_request
from tsprune.deployment.request_batches import BusyError, RequestBatches
from tsprune.errors import TspruneError, one_line
from tsprune.extras import install

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

LOOPBACK = "127.0.0.1"
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


class _RefusedError(Exception):
    """An answer other than a forecast: its status, and why."""

    def __init__(self, status: int, reason: object) -> None:
        super().__init__(reason)
        self.status = status


def application(model: Exported, serving: Serving) -> Starlette:
    """The ASGI application: POST /forecast and GET /health (see docs/guides/deploy.md).

    Raises TspruneError if Starlette is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.exceptions import HTTPException
        from starlette.responses import Response
        from starlette.routing import Route
    except ImportError:
        raise _missing("Starlette") from None

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
        except _RefusedError as refused:
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
    body = await _body(request, limits.body)
    try:
        wanted = read_request(body, limits)
    except TspruneError as error:
        raise _RefusedError(400, error) from None
    try:
        forecast = await batches.forecast(wanted.series, wanted.horizon)
    except BusyError as error:
        raise _RefusedError(503, error) from None
    except TspruneError as error:
        raise _RefusedError(500, error) from None
    finite = forecast.finite()
    if not finite.all():
        raise _RefusedError(422, f"the forecast is not finite for series {int(finite.argmin())}")
    return answer(forecast, wanted.levels)


async def _body(request: Request, most: int) -> bytes:
    """The body of a request; refused where it is too large, or does not arrive."""
    from starlette.requests import ClientDisconnect

    too_large = _RefusedError(413, f"the body is larger than {most} bytes; send fewer series at once")
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated[:20]) > most:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > most:
                    raise too_large
    except TimeoutError:
        raise _RefusedError(408, f"the body did not arrive within {_BODY_SECONDS:g} s") from None
    except ClientDisconnect:
        raise _RefusedError(400, "the connection was closed") from None
    return bytes(body)


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


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one. TspruneError in one line if there is none."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # with its protocol, by which asyncio knows to send small packets at once: else answers take 40 ms
        where = socket.socket(family, kind, protocol)
        try:
            where.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            where.bind(address)
            where.listen(2048)
        except OSError:
            where.close()
            raise
        return where
    except (OSError, UnicodeError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or one_line(error, 100)
        raise TspruneError(f"cannot listen on {host} port {port} ({reason})") from None


def serve(
    model: Exported, serving: Serving, where: socket.socket, *, ready: Callable[[], None] = lambda: None
) -> None:
    """Answers requests on a socket until SIGINT or SIGTERM; those that have begun are answered first.

    ready : called when requests are answered

    Raises TspruneError if Starlette or uvicorn are not installed.
    """
    app = application(model, serving)
    try:
        import uvicorn
    except ImportError:
        raise _missing("uvicorn") from None

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            ready()

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )
    with _signals_end_quietly(), where:
        Server(config).run(sockets=[where])


@contextlib.contextmanager
def _signals_end_quietly() -> Iterator[None]:
    """uvicorn raises the signals that stopped it once more, for handlers that were there before."""
    names = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(name, lambda *_: None) for name in names]
    try:
        yield
    finally:
        for name, handler in zip(names, before, strict=True):
            signal.signal(name, handler)


def _missing(name: str) -> TspruneError:
    return TspruneError(f"serve needs {name}; install it with: {install('serve')}")
