"""What the servers of tsprune share: a socket, the body of a request, refusals, and a run until a signal."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from tsprune.errors import TspruneError, one_line
from tsprune.extras import install

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request

LOOPBACK = "127.0.0.1"
GONE = 499  # the client closed the connection; nobody reads this


class RefusedError(Exception):
    """A request that is not answered: the status of HTTP, and why."""

    def __init__(self, status: int, reason: object) -> None:
        super().__init__(reason)
        self.status = status


def not_installed(command: str, package: str) -> TspruneError:
    """The error of a command whose extra, of the same name, is not installed."""
    return TspruneError(f"{command} needs {package}; install it with: {install(command)}")


async def body_of(request: Request, most: int, seconds: float, advice: str = "") -> bytes:
    """The body of a request.

    most : bytes
    seconds : for it to arrive
    advice : what to do about a larger one

    Raises RefusedError where it is too large, or does not arrive.
    """
    from starlette.requests import ClientDisconnect

    too_large = 413, f"the body is larger than {most} bytes{advice}"
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated[:20]) > most:
        raise RefusedError(*too_large)
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                body += part
                if len(body) > most:
                    raise RefusedError(*too_large)
    except TimeoutError:
        raise RefusedError(408, f"the body did not arrive within {seconds:g} s") from None
    except ClientDisconnect:
        raise RefusedError(GONE, "the connection was closed") from None
    return bytes(body)


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


def run_until_stopped(
    app: Starlette, where: socket.socket, command: str, *, stop_seconds: int, ready: Callable[[], None]
) -> None:
    """Answers requests on a socket until SIGINT or SIGTERM; those that have begun are answered first.

    command : that is named if uvicorn is not installed
    stop_seconds : for requests that are answered when the server stops
    ready : called when requests are answered

    Raises TspruneError if uvicorn is not installed.
    """
    try:
        import uvicorn
    except ImportError:
        raise not_installed(command, "uvicorn") from None

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            ready()

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        proxy_headers=False,  # nobody asks for the client's address
        server_header=False,
        timeout_graceful_shutdown=stop_seconds,
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
