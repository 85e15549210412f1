"""`tsprune serve`: answers over HTTP, and one line of JSON where a request is refused."""

from __future__ import annotations

import http.client
import itertools
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from tsprune.deployment import Exported
from tsprune.deployment.forecast_requests import Limits
from tsprune.errors import TspruneError
from tsprune.models import Forecaster

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("orjson")
pytest.importorskip("httpx2")

from starlette.testclient import TestClient

from tsprune.deployment.server import Serving, application
from tsprune.http_server import listening

Pair = tuple[Forecaster, Exported]


@pytest.fixture
def client(deployed: Pair) -> Iterator[TestClient]:
    limits = Limits(deployed[1].horizon, body=5000, series=3, history=100, levels=4)
    with TestClient(application(deployed[1], Serving(limits))) as client:
        yield client


def send(client: TestClient, content: Any) -> tuple[int, Any]:
    body = content if isinstance(content, bytes | str) else json.dumps(content)
    found = client.post("/forecast", content=body)
    assert found.headers["content-type"] == "application/json"
    return found.status_code, json.loads(found.content)


def test_answers_are_the_models_to_the_last_bit(client: TestClient, deployed: Pair) -> None:
    series = [[1.5, 2.0, None, 4.0, 3.25], [float("nan"), 1e6, -2.5, 1 / 3]]
    status, found = send(client, {"contexts": series, "horizon": 3})
    expected = deployed[1].forecast(series, 3)
    assert status == 200
    assert found["levels"] == list(expected.levels)
    np.testing.assert_array_equal(np.array(found["quantiles"], np.float32), expected.quantiles)
    _, other = send(client, {"contexts": series, "horizon": 3, "levels": [0.05, 0.5]})
    assert other["levels"] == [0.05, 0.5]
    np.testing.assert_array_equal(np.array(other["quantiles"], np.float32), expected.at([0.05, 0.5]))


def test_health_states_the_model_and_the_limits(client: TestClient, deployed: Pair) -> None:
    send(client, {"contexts": [[1.0], [2.0]], "horizon": 1})
    found = client.get("/health").json()
    assert found["status"] == "ok"
    assert found["model"]["name"] == deployed[1].description.name
    assert found["limits"]["series"] == 3
    assert found["served"] == {"requests": 1, "series": 2, "batches": 1, "waiting": 0}


GOOD: dict[str, Any] = {"contexts": [[1.0, 2.0, 3.0]], "horizon": 2}
REFUSED = {
    "": "not JSON",
    "\xff".encode("latin-1"): "not JSON",
    "[" * 2000: "levels deep",
    '{"contexts": [[1' + "0" * 4500 + ']], "horizon": 1}': "not JSON",
    "[]": "not a JSON object",
    "null": "not a JSON object",
    **{
        json.dumps(content): words
        for content, words in (
            ({}, "contexts is missing"),
            ({"contexts": [[1.0]]}, "horizon is missing"),
            (GOOD | {"context": 1}, "unknown key 'context'"),
            (GOOD | {"contexts": []}, "no series"),
            (GOOD | {"contexts": [[]]}, "series 0 is empty"),
            (GOOD | {"contexts": [1.0, 2.0]}, "a list of numbers for each series"),
            (GOOD | {"contexts": {"a": [1.0]}}, "a list of numbers for each series"),
            (GOOD | {"contexts": [[1.0], [None, None]]}, "series 1 has no observed value"),
            (GOOD | {"contexts": [[1.0, "2"]]}, "series 0"),
            (GOOD | {"contexts": [[1.0, [2.0]]]}, "series 0"),
            (GOOD | {"contexts": [[[1.0, 2.0]]]}, "each variate as a series"),
            (GOOD | {"contexts": [[1e39]]}, "beyond"),
            (GOOD | {"contexts": [[10**400]]}, "beyond"),
            (GOOD | {"contexts": [[1.0]] * 4}, "at most 3"),
            (GOOD | {"contexts": [[1.0] * 101]}, "at most 100"),
            (GOOD | {"horizon": 0}, "horizon"),
            (GOOD | {"horizon": 10**9}, "horizon"),
            (GOOD | {"horizon": 1.5}, "horizon"),
            (GOOD | {"horizon": True}, "horizon"),
            (GOOD | {"horizon": "2"}, "horizon"),
            (GOOD | {"levels": []}, "levels"),
            (GOOD | {"levels": [0.1] * 5}, "1 to 4"),
            (GOOD | {"levels": [2]}, "between 0 and 1"),
            (GOOD | {"levels": 0.5}, "levels"),
        )
    },
}


@pytest.mark.parametrize("body", REFUSED, ids=range(len(REFUSED)))
def test_what_is_no_request_is_one_line(client: TestClient, body: str | bytes) -> None:
    status, found = send(client, body)
    assert status == 400
    assert list(found) == ["error"]
    assert REFUSED[body] in found["error"]
    assert found["error"].isprintable()


def test_a_body_beyond_the_limit_is_not_read(client: TestClient) -> None:
    def parts() -> Iterator[bytes]:  # without a stated length
        for _ in range(10):
            yield b" " * 1000

    for content in (b" " * 5001, parts()):
        found = client.post("/forecast", content=content)
        assert (found.status_code, "5000 bytes" in found.json()["error"]) == (413, True)
    assert send(client, GOOD)[0] == 200


def test_other_paths_and_methods(client: TestClient) -> None:
    for method, path, status in (("GET", "/forecast", 405), ("POST", "/health", 405), ("GET", "/", 404)):
        found = client.request(method, path)
        assert found.status_code == status
        assert "POST /forecast" in found.json()["error"]


def test_damaged_bodies(client: TestClient) -> None:
    rng, good = np.random.default_rng(0), json.dumps(GOOD | {"levels": [0.1]}).encode()
    statuses = set()
    for number in range(300):
        damaged = bytearray(good)
        for place in rng.integers(len(good), size=1 + number % 4):
            damaged[place] = rng.choice(list(b'0123456789[]{}",.:-einftu\x00\xff'))
        statuses.add(send(client, bytes(damaged[: rng.integers(1, len(good) + 20)]))[0])
    assert statuses == {200, 400}


def test_what_the_model_cannot_forecast(deployed: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    with TestClient(application(deployed[1], Serving(Limits(2), most_waiting=1))) as client:
        assert send(client, GOOD | {"contexts": [[1.0], [2.0]]}) == (
            503,
            {"error": "too many series are waiting; try again later"},
        )
        huge = [3e38, -3e38] * 10
        status, found = send(client, GOOD | {"contexts": [huge]})
        assert (status, found) == (422, {"error": "the forecast is not finite for series 0"})


def test_a_port_that_is_taken_is_one_line() -> None:
    with listening("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(TspruneError, match=f"cannot listen on 127.0.0.1 port {port}"):
            listening("127.0.0.1", port)
    for host in ("no such host", "x" * 300, ""):
        with pytest.raises(TspruneError, match="cannot listen on"):
            listening(host, 1)


PROGRAM = """
import sys
from tsprune.cli import main
main()
heavy = {"torch", "transformers", "chronos", "pandas", "scipy", "onnx", "rich.progress"} & set(sys.modules)
print(sorted(heavy))
"""


def test_a_process_serves_many_at_once_and_stops_when_told(deployed: Pair) -> None:
    model = deployed[1]
    command = [sys.executable, "-c", PROGRAM, "serve", model.name, "--port", "0", "--json", "--threads", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        started = "".join([*itertools.takewhile(lambda line: line != "}\n", process.stdout), "}"])
        where = urlsplit(json.loads(started)["result"]["url"])
        assert where.hostname == "127.0.0.1"

        def ask(number: int) -> bool:
            series = [[float(number), 2.0, 4.0, 3.0]]
            connection = http.client.HTTPConnection(str(where.hostname), int(where.port or 0), timeout=30)
            body = json.dumps({"contexts": series, "horizon": 2})
            connection.request("POST", "/forecast", body)
            found = json.loads(connection.getresponse().read())["quantiles"]
            connection.close()
            expected = model.forecast(series, 2).quantiles
            return np.allclose(np.array(found, np.float32), expected, rtol=1e-4, atol=1e-4)

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(ask, range(40)))
        # a request that has begun is answered
        late = http.client.HTTPConnection(str(where.hostname), int(where.port or 0), timeout=30)
        body = json.dumps({"contexts": [[1.0, 2.0]] * 200, "horizon": model.horizon})
        late.request("POST", "/forecast", body)
        process.send_signal(signal.SIGTERM)
        answer = late.getresponse()
        assert (answer.status, len(json.loads(answer.read())["quantiles"])) == (200, 200)
        late.close()
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out, err) == (0, "[]\n", "")
