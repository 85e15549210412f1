"""Multivariate contexts [V, T]: read together by some families, split into single series by the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Series = NDArray[np.float32]
_Result = TypeVar("_Result")


def variates_in(context: _Series) -> int:
    """The number of series in a context [T] or [V, T]."""
    return 1 if context.ndim == 1 else len(context)


def rows_of(contexts: Sequence[_Series]) -> list[_Series]:
    """The single series [T] of all contexts, those of one context after each other."""
    return [row for context in contexts for row in np.atleast_2d(context)]


def by_variates(
    contexts: Sequence[_Series],
    work: Callable[[list[_Series]], _Result],
    ordered: Callable[[list[_Result], NDArray[np.int64]], _Result],
) -> _Result:
    """`work` on contexts with equal numbers of variates at a time; its results have one row per series.

    ordered : joins several results, and puts their rows into the given order
    """
    places: dict[int, list[int]] = {}
    for place, context in enumerate(contexts):
        places.setdefault(variates_in(context), []).append(place)
    if len(places) == 1:
        return work(list(contexts))
    rows = np.split(np.arange(len(rows_of(contexts))), np.cumsum([*map(variates_in, contexts)])[:-1])
    found = np.concatenate([rows[place] for members in places.values() for place in members])
    parts = [work([contexts[place] for place in members]) for members in places.values()]
    return ordered(parts, np.argsort(found))
