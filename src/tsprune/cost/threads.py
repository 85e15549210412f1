"""The number of threads that torch computes with."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, TypeVar

import torch

from tsprune.models.forecaster import Forecaster

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

# d_model of a token model below which threads wait for each other longer than they compute
# (benchmarks/threads.py)
NARROW = 256


@contextmanager
def thread_count(threads: int | None) -> Iterator[None]:
    """Sets the number of torch's threads while the context lasts; None leaves it."""
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def worthwhile_threads(model: Forecaster) -> int | None:
    """1 for a narrow model that decodes value by value on a CPU; None (as many as torch has) for others."""
    narrow = model.anatomy.tokens and model.anatomy.d_model < NARROW
    return 1 if narrow and model.device.type == "cpu" else None


def worthwhile(
    work: Callable[Concatenate[Forecaster, _Parameters], _Result],
) -> Callable[Concatenate[Forecaster, _Parameters], _Result]:
    """Decorates a function of a model to run with as many threads as are worthwhile for that model."""

    @functools.wraps(work)
    def wrapped(model: Forecaster, /, *args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        with thread_count(worthwhile_threads(model)):
            return work(model, *args, **kwargs)

    return wrapped
