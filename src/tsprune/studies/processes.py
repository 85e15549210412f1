"""Several models of a study at once, each in a process of its own.

1. Every model is loaded here once, so that a mistake is found before hours of work, and a few windows are
   forecast: the model that takes longest begins first.
2. Each process loads its model, opens the store by its path (SQLite lets several write), and reports its
   progress through a queue.
3. If a process fails, or this one is interrupted, the others are stopped; finished cells are in the store.
   Interrupts reach this process alone, and a process whose parent has died stops by itself.
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
from contextlib import contextmanager, suppress
from typing import Any

import torch

from tsprune.cost.allocator import keep_freed_memory
from tsprune.errors import TspruneError
from tsprune.models.forecaster import Forecaster
from tsprune.progress import Progress
from tsprune.studies.one_model import Studied, study_model
from tsprune.studies.study_settings import StudySettings
from tsprune.sweeps.store import Store, open_store

_PROBE_WINDOWS = 4
_POLL_SECONDS = 0.2


def jobs_by_default(models: int, device: str | None) -> int:
    """One process per model while there are threads for them; a single one on a GPU, which is shared."""
    kind = torch.device(device).type if device else ("cuda" if torch.cuda.is_available() else "cpu")
    return max(1, min(models, torch.get_num_threads())) if kind == "cpu" else 1


def in_processes(
    names: Sequence[str], settings: StudySettings, jobs: int, progress: Progress
) -> list[Studied]:
    """Studies models by name, `jobs` at once; the results are in the order of `names`.

    Torch's threads and the memory for replay are divided among the processes. Raises the first TspruneError
    of any of them, and one if a process dies.
    """
    costs = {place: _cost(settings.loaded(name), settings) for place, name in enumerate(names)}
    options = settings.options
    path = options.store.path if isinstance(options.store, Store) else options.store
    shared = options.replace(memory=options.memory // jobs, progress=None, store=path)
    settings = dataclasses.replace(settings, options=shared)
    context = multiprocessing.get_context("spawn")
    messages: Any = context.Queue()
    threads = max(1, torch.get_num_threads() // jobs)
    pool = ProcessPoolExecutor(
        jobs, mp_context=context, initializer=_begin, initargs=(settings, threads, messages)
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
    """Keys by descending cost; equal ones keep their order."""
    return sorted(costs, key=lambda place: -costs[place])


def _cost(model: Forecaster, settings: StudySettings) -> float:
    """Relative duration of a model's study: seconds of a forecast, for each component."""
    suite = settings.suite
    suite.require_windows()
    of = max(suite.configurations, key=lambda one: one.horizon if len(one) else 0)
    contexts = [x[-model.context_length :] for x in of.contexts if len(x)][:_PROBE_WINDOWS]
    seconds = 0.0
    for _ in range(2):  # the first forecast of a model is slower than all others
        start = time.perf_counter()
        try:
            model.forecast(contexts, of.horizon)
        except TspruneError:  # such as windows without observed values
            return 0.0
        seconds = time.perf_counter() - start
    return seconds * len(model.anatomy.components())


def _follow(futures: Sequence[Future[Studied]], messages: Any, progress: Progress) -> None:
    """Passes on the progress of the processes until all are done, or one has failed."""
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
        with suppress(queue.Empty):
            while True:
                progress(*messages.get_nowait())
        for future in done:
            future.result()  # raises what the process raised


@contextmanager
def _stopped_in_the_end(pool: ProcessPoolExecutor) -> Iterator[None]:
    """Leaves no process of the pool behind; an exception stops them at once."""
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


_given: dict[str, Any] = {}  # the arguments of `_begin`


def _begin(settings: StudySettings, threads: int, messages: Any) -> None:
    torch.set_num_threads(threads)
    keep_freed_memory()
    _given.update(settings=settings, messages=messages)


def _study(name: str) -> Studied:
    settings: StudySettings = _given["settings"]
    with open_store(settings.options.store) as store:
        settings = dataclasses.replace(settings, options=settings.options.replace(store=store))
        return study_model(settings.loaded(name), settings, _send)


def _send(stage: str, done: int, total: int) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        os._exit(1)
    _given["messages"].put((stage, done, total))
