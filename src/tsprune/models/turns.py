"""One thread at a time uses a model: to forecast with it, or to change its computation.

Hooks, replaced forwards and settings of upstream's pipelines belong to a model, not to a thread. So a
forecast, and everything that acts on a model while a context lasts (ablation, recording, replay), takes
the model for its thread. Other threads wait their turn, first come, first served. They wait as long as a
forecast takes, but no longer than `PATIENCE` for a context that stays open: its thread may be waiting for
them. Threads that wait for each other's models are told so at once.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from tsprune.errors import TspruneError

PATIENCE = 10.0  # seconds that a thread waits for a context that another thread keeps open


class _Thread:
    """A thread that has taken or awaits a model (identifiers of threads are used again, objects are not)."""

    def __init__(self) -> None:
        self.awaits: _Turns | None = None


class _Turns:
    """Whose turn it is on one model; every access is under `_changed`."""

    def __init__(self) -> None:
        self.owner: _Thread | None = None
        self.depth = 0
        self.kept_since: float | None = None  # when the owner opened a context, if it did not just forecast
        self.queue: list[_Thread] = []


_local = threading.local()
_changed = threading.Condition()
_turns: weakref.WeakKeyDictionary[nn.Module, _Turns] = weakref.WeakKeyDictionary()


def _after_fork() -> None:
    # threads of the parent that had or awaited a model are not there
    global _changed
    _changed = threading.Condition()
    _turns.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def alone(module: nn.Module, name: str, *, keeps: bool = False) -> Iterator[None]:
    """The calling thread has the model `module` alone while the context lasts; nested use is free.

    name : of the model, for errors
    keeps : the context stays open while the caller does other things; the outermost one's value counts

    Raises TspruneError if another thread keeps the model for longer than `PATIENCE` seconds, or waits for a
    model that this thread has.
    """
    me: _Thread = _local.__dict__.setdefault("thread", _Thread())
    with _changed:
        turns = _turns.setdefault(module, _Turns())
        if turns.owner is not me:
            _await(turns, me, name)
            turns.owner = me
            turns.kept_since = time.monotonic() if keeps else None
        turns.depth += 1
    try:
        yield
    finally:
        with _changed:
            # by whichever thread ends the context: a generator may be closed by another one
            turns.depth -= 1
            if turns.depth == 0:
                turns.owner = turns.kept_since = None
                _changed.notify_all()


def _await(turns: _Turns, me: _Thread, name: str) -> None:
    start = time.monotonic()
    turns.queue.append(me)
    me.awaits = turns
    try:
        while turns.owner is not None or turns.queue[0] is not me:
            if _in_a_circle(turns, me):
                raise TspruneError(
                    f"{name}: this thread and another one wait for each other's models; load each model once "
                    "a thread"
                )
            left = None  # as long as it takes
            if turns.kept_since is not None:
                left = max(start, turns.kept_since) + PATIENCE - time.monotonic()
                if left <= 0:
                    raise TspruneError(
                        f"{name}: another thread keeps an ablation or a recording open on this model; end it "
                        "first, or load the model once a thread"
                    )
            _changed.wait(left)
    finally:
        me.awaits = None
        turns.queue.remove(me)
        _changed.notify_all()


def _in_a_circle(turns: _Turns, me: _Thread) -> bool:
    """Whether the owner of `turns` awaits, through others, a model that `me` has."""
    awaited: _Turns | None = turns
    seen: set[int] = set()
    while awaited is not None and awaited.owner is not None and id(awaited) not in seen:
        if awaited.owner is me:
            return True
        seen.add(id(awaited))
        awaited = awaited.owner.awaits
    return False
