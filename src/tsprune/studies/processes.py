"""Several models of a study at once, each in a process of its own.

1. Every model is loaded here once, so that a mistake is known before hours of work depend on it, and
   a few windows are forecast: what takes longest begins first.
2. Processes load the models they study themselves, open the store by its path (SQLite lets several
   write), and send how far they are through a queue.
3. If one fails, or this process is interrupted, the others are stopped; what they finished is in the store.
   Interrupts reach this process alone, and processes whose parent is gone stop by themselves.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from tsprune.cost.allocator import keep_freed_memory
from tsprune.errors import TspruneError
from tsprune.models import load
from tsprune.models.forecaster import Forecaster
from tsprune.studies.one_model import Studied, study_model
from tsprune.studies.settings import Progress, Settings, Stage, draw
from tsprune.sweeps.store import Store

PROBE_WINDOWS = 4
POLL_SECONDS = 0.2


@dataclasses.dataclass(frozen=True)
class Task:
    """What a process needs to know, besides the name of a model.

    samples, device : as in `tsprune.study`
    store : path of the results store
    """

    settings: Settings
    samples: int | None
    device: str | None
    store: Path | None


def jobs_by_default(models: int, device: str | None) -> int:
    """One process a model while there are threads for them; one in all on a GPU, which they would share."""
    kind = torch.device(device).type if device else ("cuda" if torch.cuda.is_available() else "cpu")
    return max(1, min(models, torch.get_num_threads())) if kind == "cpu" else 1


def study_named(name: str, task: Task, store: Store | None, progress: Progress | None) -> Studied:
    """Loads a model and studies it."""
    model = draw(load(name, device=task.device), task.samples)
    return study_model(model, task.settings, store, progress)


def in_processes(names: Sequence[str], task: Task, jobs: int, progress: Progress | None) -> list[Studied]:
    """Studies models by name, `jobs` at once; what comes back is in the order of `names`.

    Torch's threads, and the memory for replay, are shared out among the processes. Raises the first
    TspruneError of any of them, and one if a process dies.
    """
    costs = {place: _cost(load(name, device=task.device), task) for place, name in enumerate(names)}
    memory = task.settings.memory // jobs
    task = dataclasses.replace(task, settings=dataclasses.replace(task.settings, memory=memory))
    context = multiprocessing.get_context("spawn")
    messages: Any = context.Queue()
    threads = max(1, torch.get_num_threads() // jobs)
    pool = ProcessPoolExecutor(
        jobs, mp_context=context, initializer=_begin, initargs=(task, threads, messages)
    )
    with _stopped_in_the_end(pool):
        with _not_interrupted():
            futures = {place: pool.submit(_study, names[place]) for place in longest_first(costs)}
        try:
            _follow(list(futures.values()), messages, progress)
        except BrokenProcessPool:
            raise TspruneError(
                "a process of the study ended abruptly: out of memory (then use fewer jobs), or the study is "
                "called by a script that does not begin its work under `if __name__ == '__main__':`"
            ) from None
        return [futures[place].result() for place in range(len(names))]


def longest_first(costs: Mapping[int, float]) -> list[int]:
    """Keys by descending cost; of equal ones in their order."""
    return sorted(costs, key=lambda place: -costs[place])


def _cost(model: Forecaster, task: Task) -> float:
    """What a study of a model takes, to compare models by: a forecast's time for each component."""
    suite = task.settings.suite
    suite.require_windows()
    of = max(suite.configurations, key=lambda one: one.horizon if len(one) else 0)
    contexts = [x[-model.context_length :] for x in of.contexts if len(x)][:PROBE_WINDOWS]
    draw(model, task.samples)
    seconds = 0.0
    for _ in range(2):  # the first forecast of a model is slower than all others
        start = time.perf_counter()
        try:
            model.forecast(contexts, of.horizon)
        except TspruneError:  # such as windows without observed values: then it stays in its place
            return 0.0
        seconds = time.perf_counter() - start
    return seconds * len(model.anatomy.components())


def _follow(futures: Sequence[Future[Studied]], messages: Any, progress: Progress | None) -> None:
    """Passes on what the processes say until all are done, or one has failed."""
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
        for message in _waiting(messages):
            if progress is not None:
                progress(*message)
        for future in done:
            future.result()  # raises what the process raised


def _waiting(messages: Any) -> Iterator[tuple[str, Stage, int, int]]:
    while True:
        try:
            yield messages.get_nowait()
        except queue.Empty:
            return


@contextmanager
def _stopped_in_the_end(pool: ProcessPoolExecutor) -> Iterator[None]:
    """Leaves no process of the pool behind; after an exception they do not finish what they are at."""
    others = set(multiprocessing.active_children())
    try:
        yield
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _not_interrupted() -> Iterator[None]:
    """Processes that are started meanwhile never see Ctrl-C; this one does so afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: held.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited, unlike a handler
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, before)
    if held:
        raise KeyboardInterrupt


# --- in the processes ----------------------------------------------------------------------------

_given: dict[str, Any] = {}  # what the process was started with


def _begin(task: Task, threads: int, messages: Any) -> None:
    torch.set_num_threads(threads)
    keep_freed_memory()
    _given.update(task=task, messages=messages)


def _study(name: str) -> Studied:
    task: Task = _given["task"]
    with Store(task.store) if task.store is not None else nullcontext() as store:
        return study_named(name, task, store, _send)


def _send(name: str, stage: Stage, done: int, total: int) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        os._exit(1)
    _given["messages"].put((name, stage, done, total))
