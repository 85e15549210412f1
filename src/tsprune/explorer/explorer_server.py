"""The explorer behind HTTP, for pages of this machine only.

1. Requests with another Host than the server's own address, or another Origin, are refused: a page of the
   web cannot read this server, nor have it compute, by a name that leads to 127.0.0.1.
2. One thread computes, in the order of the requests. Losses give way after each batch of windows.
3. A request whose page has gone, or has asked for something else since, is dropped before its next step.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from tsprune.errors import TspruneError, one_line
from tsprune.explorer.explorer_requests import asked_ablation, asked_series, json_ready, read_body
from tsprune.explorer.map_scores import MapScores
from tsprune.explorer.model_description import description
from tsprune.explorer.pruning_text import plan_text
from tsprune.explorer.session import Session
from tsprune.explorer.static_page import page_files
from tsprune.http_server import GONE, LOOPBACK, RefusedError, body_of, not_installed, run_until_stopped
from tsprune.models.forecaster import NotFiniteError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

_MOST_BODY = 2**18  # bytes of a request
_BODY_SECONDS = 10.0
_STOP_SECONDS = 2
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}

_Result = TypeVar("_Result")
_Answer = Callable[[Mapping[str, Any]], Any]


class Answers:
    """The answers to requests, by path: keys that a request has, and the function that answers it.

    Functions run in the thread that computes. One that is a generator gives way at each `yield`.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._scores = MapScores(session)
        self.by_path: Mapping[str, tuple[tuple[str, ...], _Answer]] = {
            "/api/series": (("series",), self._series),
            "/api/forecast": (("series", "off", "mode", "seed", "whole"), self._forecast),
            "/api/losses": (("off", "mode", "seed"), self._losses),
            "/api/scores": (("score", "series"), self._values),
            "/api/component": (("series", "component", "off", "mode", "seed"), self._component),
            "/api/plan": (("off",), self._plan),
        }

    def about(self) -> Any:
        return description(self._session, self._scores)

    def _series(self, stated: Mapping[str, Any]) -> Any:
        return self._session.series_view(asked_series(stated, self._session))

    def _forecast(self, stated: Mapping[str, Any]) -> Any:
        series = asked_series(stated, self._session)
        ablation = asked_ablation(stated, self._session)
        whole = stated.get("whole", True)
        if not isinstance(whole, bool):
            raise TspruneError("whole must be true or false")
        return self._session.without(series, ablation, None if whole else self._session.quick_steps(series))

    def _losses(self, stated: Mapping[str, Any]) -> Generator[None, None, Any]:
        return self._session.losses(asked_ablation(stated, self._session))

    def _values(self, stated: Mapping[str, Any]) -> Any:
        return self._scores.values(stated.get("score", ""), asked_series(stated, self._session))

    def _component(self, stated: Mapping[str, Any]) -> Any:
        series = asked_series(stated, self._session)
        ablation = asked_ablation(stated, self._session)
        component = self._session.component(str(stated.get("component", "")))
        return self._session.component_view(series, component, ablation)

    def _plan(self, stated: Mapping[str, Any]) -> Any:
        components = asked_ablation(stated, self._session).components
        if not components:
            raise TspruneError("nothing is off; switch components off first")
        return plan_text(self._session, components)


def explorer_application(session: Session, port: int) -> Starlette:
    """The ASGI application: the page at /, and its requests under /api.

    port : that pages reach it by on 127.0.0.1

    Raises TspruneError if Starlette is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.exceptions import HTTPException
        from starlette.responses import Response
        from starlette.routing import Route
    except ImportError:
        raise not_installed("explore", "Starlette") from None

    answers = Answers(session)
    assets = {
        "/" if name == "index.html" else f"/{name}": text.encode() for name, text in page_files().items()
    }
    hosts = {f"{name}:{port}" for name in (LOOPBACK, "localhost")}

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        with ThreadPoolExecutor(1, thread_name_prefix="explore") as app.state.thread:
            yield

    def response(content: bytes, status: int = 200, kind: str = "application/json") -> Response:
        return Response(content, status, dict(_HEADERS), media_type=kind)

    def refusal(reason: object, status: int) -> Response:
        return response(json.dumps({"error": one_line(reason)}).encode(), status)

    def answering(
        work: Callable[[Request], Awaitable[Response]],
    ) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                _check_sender(request, hosts)
                return await work(request)
            except RefusedError as refused:
                return refusal(refused, refused.status)

        return endpoint

    async def asset(request: Request) -> Response:
        path = request.url.path
        return response(assets[path], kind=_TYPES.get(path.rpartition(".")[2], _TYPES["html"]))

    async def about(request: Request) -> Response:
        return response(_as_json(await _computed(request, answers.about)))

    async def answer(request: Request) -> Response:
        keys, work = answers.by_path[request.url.path]
        body = await _body_of(request)
        try:
            stated = read_body(body, keys)
            return response(_as_json(await _computed(request, partial(work, stated))))
        except NotFiniteError as error:
            raise RefusedError(422, error) from None
        except TspruneError as error:
            raise RefusedError(400, error) from None

    async def other(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        try:
            _check_sender(request, hosts)
        except RefusedError as refused:
            return refusal(refused, refused.status)
        return refusal(f"{error.detail}; the explorer is at /", error.status_code)

    async def fault(_: Request, error: Exception) -> Response:
        return refusal(f"{type(error).__name__}: {one_line(error, 200)}", 500)

    routes = [Route(path, answering(asset), methods=["GET"]) for path in assets]
    routes += [Route("/api/model", answering(about), methods=["GET"])]
    routes += [Route(path, answering(answer), methods=["POST"]) for path in answers.by_path]
    return Starlette(
        routes=routes, exception_handlers={HTTPException: other, Exception: fault}, lifespan=lifespan
    )


def _check_sender(request: Request, hosts: set[str]) -> None:
    """Refuses requests to another name than the server's, and those of pages of other sites."""
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    if host not in hosts:
        raise RefusedError(421, f"this server is {min(hosts)}, not {one_line(host, 100) or 'unnamed'}")
    if origin is not None and origin not in {f"http://{name}" for name in hosts}:
        raise RefusedError(403, f"pages of {one_line(origin, 100)} may not use this server")
    if request.headers.get("sec-fetch-site") == "cross-site":
        raise RefusedError(403, "pages of other sites may not use this server")


async def _body_of(request: Request) -> bytes:
    """The body of a request; refused where it is too large, or does not arrive."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise RefusedError(415, "send JSON, as application/json")
    return await body_of(request, _MOST_BODY, _BODY_SECONDS)


async def _computed(request: Request, work: Callable[[], _Result]) -> Any:
    """The result of `work` in the thread that computes, step by step if it is a generator."""
    result: Any = await _turn(request, work)
    if not isinstance(result, Generator):
        return result
    while True:
        ended, value = await _turn(request, partial(_step, result))
        if ended:
            return value


def _step(work: Generator[None, None, Any]) -> tuple[bool, Any]:
    try:
        next(work)
    except StopIteration as end:
        return True, end.value
    return False, None


async def _turn(request: Request, work: Callable[[], _Result]) -> _Result:
    """One piece of work in its turn; dropped if the page has gone by then."""
    gone = False

    def unless_gone() -> _Result:
        if gone:
            raise RefusedError(GONE, "the connection was closed")
        return work()

    loop = asyncio.get_running_loop()
    future = loop.run_in_executor(request.app.state.thread, unless_gone)
    while not future.done():
        await asyncio.wait([future], timeout=0.02)
        gone = gone or await request.is_disconnected()
    return await future


def _as_json(value: Any) -> bytes:
    return json.dumps(json_ready(value), allow_nan=False, separators=(",", ":")).encode()


def run_explorer(session: Session, where: socket.socket, *, ready: Callable[[], None] = lambda: None) -> None:
    """Answers pages on a socket of 127.0.0.1 until Ctrl-C.

    ready : called when requests are answered

    Raises TspruneError if Starlette or uvicorn are not installed.
    """
    app = explorer_application(session, where.getsockname()[1])
    run_until_stopped(app, where, "explore", stop_seconds=_STOP_SECONDS, ready=ready)
