"""Modules that compute something else for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

Forward = Callable[..., Any]


@contextmanager
def substituted_forwards(forwards: Iterable[tuple[nn.Module, Forward]]) -> Iterator[None]:
    """Modules with another forward while it lasts; hooks on them still run."""
    patched: list[tuple[nn.Module, Forward | None]] = []
    try:
        for module, forward in forwards:
            patched.append((module, module.__dict__.get("forward")))
            module.__dict__["forward"] = forward
        yield
    finally:
        for module, outer in reversed(patched):
            if outer is None:
                del module.__dict__["forward"]
            else:
                module.__dict__["forward"] = outer
