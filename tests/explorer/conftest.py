"""One session, one server and one browser for the explorer's tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests.browsing import browser as browser
from tests.suites import shared_suite
from tests.tiny import TINY
from tsprune.explorer import Session
from tsprune.models import load


@pytest.fixture(scope="session")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A tiny Chronos-Bolt, with an encoder and a decoder."""
    folder = tmp_path_factory.mktemp("explorer") / "tiny-chronos-bolt"
    TINY["tiny-chronos-bolt"](folder)
    return Session(load(folder, device="cpu"), shared_suite())


@pytest.fixture(scope="session")
def address(session: Session) -> Iterator[str]:
    """The address of a server of `session`."""
    pytest.importorskip("starlette")
    uvicorn = pytest.importorskip("uvicorn")
    from tsprune.explorer.explorer_server import explorer_application
    from tsprune.http_server import listening

    with listening("127.0.0.1", 0) as where:
        port = where.getsockname()[1]
        config = uvicorn.Config(explorer_application(session, port), log_level="warning", access_log=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [where]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{port}/"
        server.should_exit = True
        thread.join(10)
