"""Sweeps on Ray: the numbers of the serial run, whatever happens to the machines."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.suites import small_suite, tiny
from tests.sweeping import Counting, assert_equal, heads_and_mean_mlps
from tests.tiny import TINY
from tsprune.errors import TspruneError
from tsprune.models import load
from tsprune.sweeps import CLEAN, Store, make_plan, run, single_ablations
from tsprune.sweeps.cluster import RayExecutor, split_units

BATCHES = 5


# --- two nodes, one of them lost -----------------------------------------------------------------

DRIVER = """
import json, sys, time
from tests.suites import small_suite
from tests.sweeping import heads_and_mean_mlps
from tsprune.errors import TspruneError
from tsprune.models import load
from tsprune.sweeps import run
from tsprune.sweeps.cluster import RayExecutor, import_ray

model, lost, stopped = load(sys.argv[1], device="cpu"), sys.argv[2], sys.argv[3]
seen, found = [], {}
try:
    run(model, small_suite(), [], executor=RayExecutor("auto"))
except TspruneError as error:
    found["unreachable"] = str(error)

ray = import_ray()
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
other = cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
ray.init(address=cluster.address, log_to_driver=False)

def kill_a_node(stage, done, total):
    seen.append((done, total))
    if len(seen) == 1:  # both nodes have a unit in hand, and more are waiting
        cluster.remove_node(other, allow_graceful=False)

def stop(stage, done, total):
    if done > total // 2:
        raise KeyboardInterrupt

def sweep(path, progress):
    return run(model, small_suite(), heads_and_mean_mlps(model), batch_size=2, store=path, progress=progress,
               executor=RayExecutor())

result = sweep(lost, kill_a_node)
found["seen"], found["failed"] = seen, len(result.failed)
def alive():
    return sum(node["Alive"] for node in ray.nodes())

patience = time.monotonic() + 60  # the sweep may be done before the cluster calls the node dead
while alive() > 1 and time.monotonic() < patience:
    time.sleep(0.5)
found["alive"] = alive()
try:
    sweep(stopped, stop)
except KeyboardInterrupt:
    found["stopped"] = True
try:
    run(model, small_suite(), [], executor=RayExecutor(gpus=1))
except TspruneError as error:
    found["unfit"] = str(error)
model.name = "bundled:nonsense"
try:
    run(model, small_suite(), [], executor=RayExecutor())
except TspruneError as error:
    found["unknown"] = str(error)
model.name = "bundled:timesfm"
try:
    run(model, small_suite(), [], executor=RayExecutor())
except TspruneError as error:
    found["another"] = str(error)
ray.shutdown()
cluster.shutdown()
print(json.dumps(found))
"""


@pytest.mark.usefixtures("one_thread")  # as the workers, which have a CPU each
def test_a_lost_node_and_an_interrupt_lose_nothing(tmp_path: Path) -> None:
    checkpoint, lost, stopped = tmp_path / "model", tmp_path / "lost", tmp_path / "stopped"
    TINY["tiny-timesfm"](checkpoint)
    # Ray gives its workers the lowest priority, which on a busy machine is none
    environment = os.environ | {"RAY_worker_niceness": "0"}
    driver = subprocess.run(
        [sys.executable, "-c", DRIVER, checkpoint, lost, stopped],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=environment,
    )
    found = json.loads(driver.stdout.splitlines()[-1])
    model, suite = Counting(load(str(checkpoint), device="cpu")), small_suite()
    model.prefix_steps = model.inner.prefix_steps  # as on the cluster: both horizons share batches
    cells = heads_and_mean_mlps(model)
    total = (5 + 3) // 2 * (1 + len(cells))

    assert found["alive"] == 1
    assert found["failed"] == 0
    # every forecast was counted once
    assert found["seen"] == [[done, total] for done in range(1, total + 1)]

    serial = run(model, suite, cells, batch_size=2, store=tmp_path / "serial")
    with Store(lost) as store, Store(tmp_path / "serial") as other:
        assert sorted(store.frame()["key"]) == sorted(other.frame()["key"])
        assert len(store.frame()) == 2 * (1 + len(cells))
    model.calls = 0
    assert_equal(run(model, suite, cells, batch_size=2, store=lost), serial)
    assert model.calls == 0  # all of it came from the cluster

    assert found["stopped"]
    assert_equal(run(model, suite, cells, batch_size=2, store=stopped), serial)
    assert 0 < model.calls < total

    assert "cannot reach a Ray cluster at 'auto'" in found["unreachable"]
    assert "no worker with 1 CPUs and 1 GPUs fits" in found["unfit"]
    assert "no bundled checkpoint 'nonsense'" in found["unknown"]
    assert "is another checkpoint on a worker" in found["another"]
    for name in ("unreachable", "unfit", "unknown", "another"):
        assert "\n" not in found[name]


# --- units, and no Ray at all --------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 7, 100])
def test_split_units_are_the_same_work(workers: int) -> None:
    model = tiny("tiny-timesfm")
    cells = heads_and_mean_mlps(model) + list(single_ablations(model, "attention").values())
    plan = make_plan(Counting(model), small_suite(), cells, batch_size=2)
    parts = split_units(plan, workers)
    for unit in plan.units():
        of_unit = [part for part in parts if part.batch == unit.batch]
        together = [ablation for part in of_unit for ablation in part.ablations]
        assert sorted(together, key=repr) == sorted(unit.ablations, key=repr)
        assert len(of_unit) <= len(unit.ablations) // 8
    assert len(set(parts)) == len(parts)
    assert (len(parts) > len(plan.units())) == (workers > 1)
    assert sum(CLEAN in part.ablations for part in parts) == BATCHES


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(TspruneError, match=r'^Ray is not installed.*pip install "ray>=\d[\d.]*"$'):
        RayExecutor()


# --- a cluster on this machine, and addresses where there is none --------------------------------

LOCAL = """
import json, os, sys
from tests.suites import small_suite
from tests.sweeping import heads_and_mean_mlps
from tsprune.models import load
from tsprune.sweeps import run
from tsprune.sweeps.cluster import RayExecutor, import_ray
from tsprune.sweeps.reachable import problem_at

model, listening, asked = load(sys.argv[1], device="cpu"), set(), []

def look(_stage, _done, _total):
    ray = import_ray()
    import psutil  # comes with ray
    this = psutil.Process()
    own = {this.pid, *(child.pid for child in this.children(recursive=True))}
    for socket in psutil.net_connections("inet"):
        if socket.status == "LISTEN" and socket.pid in own:
            listening.add(socket.laddr.ip)
    asked.append(problem_at(ray.get_runtime_context().gcs_address))

executor = RayExecutor("local", workers=1)
run(model, small_suite(), heads_and_mean_mlps(model)[:2], executor=executor, progress=look)
print(json.dumps({"listening": sorted(listening), "problem": asked[0],
                  "left": os.environ.get("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER")}))
"""


def test_a_local_cluster_listens_on_this_machine_only(tmp_path: Path) -> None:
    """Also: a cluster that is there is not taken for one that is not."""
    TINY["tiny-timesfm"](tmp_path / "model")
    command = [sys.executable, "-c", LOCAL, str(tmp_path / "model")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["listening"]
    assert set(found["listening"]) <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    assert (found["problem"], found["left"]) == (None, None)


def test_an_address_where_nobody_is_answers_at_once() -> None:
    with socket.socket() as silent, socket.socket() as free:
        for one in (silent, free):
            one.bind(("127.0.0.1", 0))
        silent.listen()
        listens, closed = (f"127.0.0.1:{one.getsockname()[1]}" for one in (silent, free))
        addresses = (closed, f"ray://{closed}", listens, "name.invalid:6379", "127.0.0.1:99999", "\0:1")
        start = time.monotonic()
        for address in addresses:
            with pytest.raises(TspruneError, match="cannot reach a Ray cluster at"):
                RayExecutor(address)
        assert time.monotonic() - start < 10
