"""`tsprune serve` under load: 64 clients against one request after another, in turns, from another process.

To reach: 64 clients get at least 5 times the throughput, none of 10,000 requests fails, and bodies of garbage
are answered with a status of 400 to 499. Every client keeps its connection and asks for one series.
Sharing a call saves most where a forecast's fixed cost is large beside its arithmetic: short histories.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

import tsprune
from tsprune.cost.latency import median_interval

CLIENTS, ROUNDS, ALONE = 64, 10, 100


class Client:
    """A connection that is kept; the standard library has no asynchronous client of HTTP."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self.host, self.port = str(address.hostname), int(address.port or 80)

    async def __aenter__(self) -> Client:
        self.reader, self.writer = await asyncio.open_connection(self.host, self.port, limit=2**24)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def post(self, body: bytes) -> tuple[int, bytes]:
        """The status and the body of an answer."""
        head = f"POST /forecast HTTP/1.1\r\nhost: {self.host}\r\ncontent-length: {len(body)}\r\n\r\n"
        self.writer.write(head.encode() + body)
        answer = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(answer.partition("content-length:")[2].split()[0])
        return int(answer.split()[1]), await self.reader.readexactly(length)


@contextmanager
def served(folder: Path, *options: str) -> Iterator[str]:
    """The address of a server in a process of its own, which is stopped with SIGTERM."""
    command = [sys.executable, "-m", "tsprune.cli", "serve", str(folder), "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split(" on ")[1].split()[0]
        process.terminate()
    print(f"  stopped with exit code {process.returncode}")


async def load(url: str, clients: int, requests: int, bodies: list[bytes], horizon: int) -> list[float]:
    """Seconds of each of `requests` answers to `clients`, the last entry those of all; AssertionError if an
    answer holds no forecast."""
    left, seconds = iter(range(requests)), []

    async def ask() -> None:
        async with Client(url) as client:
            for number in left:
                start = time.perf_counter()
                status, answer = await client.post(bodies[number % len(bodies)])
                seconds.append(time.perf_counter() - start)
                assert status == 200, answer
                if number % 50 == 0:
                    quantiles = np.array(json.loads(answer)["quantiles"])
                    assert quantiles.shape[2] == horizon
                    assert np.isfinite(quantiles).all()

    start = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(clients)))
    return [*seconds, time.perf_counter() - start]


async def garbage(url: str, body: bytes, count: int) -> Counter[int]:
    """Statuses of damaged copies of a good body."""
    rng, found = np.random.default_rng(0), Counter[int]()
    for number in range(count):
        damaged = bytearray(body)
        for place in rng.integers(len(damaged), size=1 + number % 5):
            damaged[place] = rng.integers(256)
        cut = bytes(damaged[: rng.integers(len(damaged) + 1)] if number % 3 == 0 else damaged)
        async with Client(url) as client:
            found[(await client.post(cut))[0]] += 1
    return found


def run(folder: Path, context: int, horizon: int, requests: int, options: list[str]) -> None:
    rng = np.random.default_rng(0)
    series = rng.standard_normal((256, context)).cumsum(1).round(4)
    bodies = [json.dumps({"contexts": [x.tolist()], "horizon": horizon}).encode() for x in series]
    with served(folder, *options) as url:
        alone, together, waits = [], [], []
        asyncio.run(load(url, CLIENTS, 2 * CLIENTS, bodies, horizon))  # warm
        for _ in range(ROUNDS):
            *_, seconds = asyncio.run(load(url, 1, ALONE, bodies, horizon))
            alone.append(ALONE / seconds)
            *each, seconds = asyncio.run(load(url, CLIENTS, requests // ROUNDS, bodies, horizon))
            together.append(len(each) / seconds)
            waits += each
        ratio, low, high = median_interval(np.array(together) / np.array(alone))
        print(
            f"  context {context}, horizon {horizon}: {np.median(alone):.0f} requests/s one after another, "
            f"{np.median(together):.0f} from {CLIENTS} clients: x {ratio:.2f} [{low:.2f}, {high:.2f}]; "
            f"an answer within {1000 * np.median(waits):.0f} ms, 99 % within "
            f"{1000 * np.quantile(waits, 0.99):.0f} ms; {len(waits)} requests, none failed"
        )
        statuses = asyncio.run(garbage(url, bodies[0][-200:], 300))
        print(f"  damaged bodies, by status: {dict(sorted(statuses.items()))}")
        assert all(status == 200 or 400 <= status < 500 for status in statuses)
        asyncio.run(load(url, 1, 1, bodies, horizon))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="bundled:chronos-bolt")
    parser.add_argument("--folder", type=Path, help="an exported model, in place of exporting --model")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--contexts", type=int, nargs="*", default=[64, 128, 512])
    parser.add_argument("--horizon", type=int, default=24)
    parser.add_argument("--requests", type=int, default=10_000, help="of all clients together")
    parser.add_argument("options", nargs="*", help="of tsprune serve, after --")
    given = parser.parse_args()
    print(f"machine: {platform.machine()}, {os.cpu_count()} cores, clients on the same ones")
    with tempfile.TemporaryDirectory() as temporary:
        where = given.folder or Path(temporary) / "out"
        if given.folder is None:
            tsprune.export(given.model, where, precision=given.precision)
        for length in given.contexts:
            run(where, length, given.horizon, given.requests, given.options)
