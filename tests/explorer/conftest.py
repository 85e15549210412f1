"""One session, one server and one browser for the explorer's tests."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.suites import shared_suite
from tests.tiny import TINY
from tsprune.explorer import Session
from tsprune.models import load

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


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
    from tsprune.deployment.server import listening
    from tsprune.explorer.explorer_server import explorer_application

    with listening("127.0.0.1", 0) as where:
        port = where.getsockname()[1]
        config = uvicorn.Config(explorer_application(session, port), log_level="warning", access_log=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [where]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{port}/"
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """The system's Chromium, driven by Playwright.

    Tests that need it are skipped where it is missing, and fail if TSPRUNE_REQUIRE_BROWSER=1.
    """
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        message = f"no browser; install one of: {', '.join(BROWSERS)}"
        if os.environ.get("TSPRUNE_REQUIRE_BROWSER") == "1":
            pytest.fail(message)
        pytest.skip(message)
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        # as root, and in containers, Chromium's own sandbox does not start
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()
