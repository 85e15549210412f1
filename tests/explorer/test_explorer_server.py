"""The explorer's requests: answers, and one line of JSON where one is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tsprune.explorer import Session
from tsprune.pruning import Plan

pytest.importorskip("starlette")
pytest.importorskip("httpx2")

from starlette.testclient import TestClient

from tsprune.explorer.explorer_server import explorer_application

PORT = 8123
SERIES = {"configuration": "first/D/short", "window": 0}


@pytest.fixture(scope="module")
def client(session: Session) -> Iterator[TestClient]:
    app = explorer_application(session, PORT)
    with TestClient(app, base_url=f"http://127.0.0.1:{PORT}") as client:
        yield client


def ask(client: TestClient, path: str, content: Any, **how: Any) -> tuple[int, Any]:
    body = content if isinstance(content, bytes | str) else json.dumps(content)
    headers = {"content-type": "application/json"} | how.pop("headers", {})
    found = client.post(f"/api/{path}", content=body, headers=headers, **how)
    return found.status_code, json.loads(found.content)


def test_the_page_and_its_files(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    for name, kind in (("explorer.css", "css"), ("report.css", "css"), ("main.js", "javascript")):
        assert f'="{name}"' in page.text
        assert kind in client.get(f"/{name}").headers["content-type"]
    assert len(client.get("/plotly.min.js").content) > 1_000_000
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_answers(client: TestClient, session: Session) -> None:
    about = client.get("/api/model").json()
    cells = [cell for row in about["rows"] for part in row["parts"] for cell in part["cells"]]
    assert cells == list(session.cells)
    status, series = ask(client, "series", {"series": SERIES})
    assert (status, len(series["clean"]["quantiles"][0])) == (200, series["horizon"])
    wanted = {"series": SERIES, "off": cells[:2], "mode": "mean"}
    status, found = ask(client, "forecast", wanted | {"whole": False})
    assert (status, np.shape(found["quantiles"])) == (200, (3, series["quick_steps"]))
    status, losses = ask(client, "losses", {"off": cells[:2]})
    assert (status, losses["windows"]) == (200, len(session.few.suite))
    status, values = ask(client, "scores", {"score": "stable_rank", "series": SERIES})
    assert (status, values["done"]) == (200, values["total"])
    status, view = ask(client, "component", {"series": SERIES, "component": cells[0], "off": []})
    assert status == 200
    assert len(view["attention"]["weights"]) == len(view["attention"]["queries"])
    status, text = ask(client, "plan", {"off": [cells[1], cells[0]]})
    plan = Plan.from_json(text["plan"])
    assert [c.address for c in plan.components] == cells[:2]
    namespace: dict[str, Any] = {}
    exec(text["python"].partition("smaller =")[0], namespace)
    assert namespace["plan"].components == plan.components
    assert session.model.name in text["command"]


GOOD = {"series": SERIES, "off": [], "mode": "zero"}
REFUSED: list[tuple[str, Any, str]] = [
    ("forecast", "", "not JSON"),
    ("forecast", "[" * 2000, "levels deep"),
    ("forecast", "[]", "not a JSON object"),
    ("forecast", GOOD | {"other": 1}, "unknown key 'other'"),
    ("forecast", {}, "series must be"),
    ("forecast", GOOD | {"series": "pocket"}, "series must be"),
    ("forecast", GOOD | {"series": {"configuration": 1, "window": 0}}, "series must be"),
    ("forecast", GOOD | {"series": SERIES | {"values": []}}, "series must be"),
    ("forecast", GOOD | {"series": SERIES | {"window": "0"}}, "the window"),
    ("forecast", GOOD | {"series": SERIES | {"window": -1}}, "the window"),
    ("forecast", GOOD | {"series": SERIES | {"window": 10**30}}, "has windows 0 to"),
    ("forecast", GOOD | {"series": {"configuration": "x\x00y", "window": 0}}, "no configuration"),
    ("forecast", GOOD | {"series": {"values": 3}}, "a list of numbers"),
    ("forecast", GOOD | {"series": {"values": [1, 2]}}, "8 to 4,096"),
    ("forecast", GOOD | {"series": {"values": ["a"] * 9}}, "series 0"),
    ("forecast", GOOD | {"series": {"values": [1e300] * 9}}, "beyond"),
    ("forecast", GOOD | {"off": "encoder.0.mlp"}, "a list of addresses"),
    ("forecast", GOOD | {"off": [1]}, "a list of addresses"),
    ("forecast", GOOD | {"off": ["encoder.0"]}, "not a head or an MLP"),
    ("forecast", GOOD | {"off": ["encoder.*.mlp"]}, "not a head or an MLP"),
    ("forecast", GOOD | {"off": ["encoder.99.mlp"]}, "matches no component"),
    ("forecast", GOOD | {"off": ["encoder.0.mlp"] * 99}, "components are off"),
    ("forecast", GOOD | {"mode": "noise"}, "zero, mean, resample"),
    ("forecast", GOOD | {"mode": ["zero"]}, "zero, mean, resample"),
    ("forecast", GOOD | {"seed": -1}, "seed"),
    ("forecast", GOOD | {"seed": 1.5}, "seed"),
    ("forecast", GOOD | {"whole": 1}, "true or false"),
    ("losses", {"off": None}, "a list of addresses"),
    ("scores", {"score": "size", "series": SERIES}, "unknown score"),
    ("scores", {"score": ["size"], "series": SERIES}, "unknown score"),
    ("component", GOOD | {"component": "decoder"}, "matches no component"),
    ("component", GOOD, "matches no component"),
    ("plan", {"off": []}, "nothing is off"),
]


@pytest.mark.parametrize("case", REFUSED, ids=range(len(REFUSED)))
def test_garbage_is_one_clear_line(client: TestClient, case: tuple[str, Any, str]) -> None:
    path, content, words = case
    status, found = ask(client, path, content)
    assert (status, list(found)) == (400, ["error"])
    assert words in found["error"]
    assert found["error"].isprintable()


def test_damaged_requests_are_answered(client: TestClient) -> None:
    rng, good = np.random.default_rng(0), json.dumps(GOOD | {"off": ["encoder.0.mlp"]}).encode()
    statuses = set()
    for number in range(200):
        damaged = bytearray(good)
        for place in rng.integers(len(good), size=number % 3):
            damaged[place] = rng.choice(list(b'0123456789[]{}",.:-einftu\x00\xff'))
        statuses.add(ask(client, "forecast", bytes(damaged))[0])
    assert statuses == {200, 400}


def test_other_hosts_origins_addresses_and_methods_are_refused(client: TestClient) -> None:
    for host in ("example.org", "127.0.0.1", f"127.0.0.1:{PORT + 1}", "evil.localhost:8123", ""):
        for path in ("/", "/main.js", "/api/model", "/nowhere"):
            found = client.get(path, headers={"host": host})
            assert found.status_code == 421, (host, path)
            assert list(found.json()) == ["error"]
    own = {"origin": f"http://localhost:{PORT}", "host": f"localhost:{PORT}"}
    assert client.get("/api/model", headers=own).status_code == 200
    for headers in ({"origin": "http://example.org"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
        assert ask(client, "series", {"series": SERIES}, headers=headers)[0] == 403
    for method, path, status in (
        ("GET", "/api/series", 405),
        ("POST", "/api/model", 405),
        ("GET", "/x", 404),
    ):
        found = client.request(method, path)
        assert found.status_code == status
        assert "the explorer is at /" in found.json()["error"]
    for path in ("/../session.py", "/%2e%2e/session.py", "//etc/passwd"):
        assert client.get(path).status_code == 404
    status, found = ask(client, "series", {"series": SERIES}, headers={"content-type": "text/plain"})
    assert (status, found) == (415, {"error": "send JSON, as application/json"})
    assert ask(client, "series", b" " * 2**19)[0] == 413
