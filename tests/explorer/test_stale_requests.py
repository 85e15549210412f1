"""Requests whose page has gone are dropped before they are computed."""

from __future__ import annotations

import http.client
import json
import socket
import time
from urllib.parse import urlsplit

from tsprune.explorer import Session
from tsprune.explorer.session import finished
from tsprune.hooks.ablation import Ablation


def test_a_request_whose_page_has_gone_is_not_computed(address: str, session: Session) -> None:
    where = urlsplit(address)
    host, port = str(where.hostname), int(where.port or 0)
    first, second = ([one] for one in list(session.cells)[-2:])
    first_off, second_off = (
        Ablation((session.component(one[0]),), "mean", seed=4) for one in (first, second)
    )
    session.reference_for(first_off)
    answered = http.client.HTTPConnection(host, port, timeout=60)
    with session.model.alone(keeps=True):  # the server's thread waits for the model
        body = {"off": first, "mode": "mean", "seed": 4}
        answered.request("POST", "/api/losses", json.dumps(body), {"content-type": "application/json"})
        time.sleep(0.2)
        gone = json.dumps(body | {"off": second})
        with socket.create_connection((host, port)) as connection:
            head = f"POST /api/losses HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Content-Length: {len(gone)}\r\n\r\n{gone}".encode())
            time.sleep(0.2)
        time.sleep(0.3)
    assert json.loads(answered.getresponse().read())["windows"] == len(session.few.suite)
    answered.request("POST", "/api/plan", json.dumps({"off": first}), {"content-type": "application/json"})
    assert answered.getresponse().status == 200  # all that was queued before it is done
    answered.close()
    assert list(session.losses(first_off)) == []
    assert list(session.losses(second_off)) != []
    assert finished(session.losses(second_off)).windows == len(session.few.suite)
