"""Multivariate contexts [V, T]: read together by some families, split into single series by the others.

Past covariates are further rows, which some families read.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tsprune.models.contexts import CheckedContext

_Series = NDArray[np.float32]
_Result = TypeVar("_Result")
_Key = TypeVar("_Key", bound=Hashable)
_Rows = TypeVar("_Rows", bound=Any)  # an array or a tensor


def variates_in(context: _Series) -> int:
    """The number of series in a context [T] or [V, T]."""
    return 1 if context.ndim == 1 else len(context)


def rows_of(contexts: Sequence[_Series]) -> list[_Series]:
    """The single series [T] of all contexts, those of one context after each other."""
    return [row for context in contexts for row in np.atleast_2d(context)]


def places_by(keys: Iterable[_Key]) -> dict[_Key, list[int]]:
    """The places of each key, ascending, in the order of their first ones."""
    places: dict[_Key, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    return places


def by_variates(
    contexts: Sequence[CheckedContext],
    work: Callable[[list[_Series], int], _Result],
    ordered: Callable[[list[_Result], NDArray[np.int64]], _Result],
) -> _Result:
    """`work` on contexts with equal numbers of variates and of covariates at a time.

    work : of contexts [T] or [V + C, T], and C; its results have one row per series or variate
    ordered : joins several results, and puts their rows into the given order
    """
    places = places_by((variates_in(context.values), context.covariates) for context in contexts)

    def part(members: Iterable[int], covariates: int) -> _Result:
        return work([contexts[place].values for place in members], covariates)

    if len(places) == 1:
        return part(range(len(contexts)), contexts[0].covariates)
    ends = np.cumsum([variates_in(context.values) - context.covariates for context in contexts])
    rows = np.split(np.arange(ends[-1]), ends[:-1])
    found = np.concatenate([rows[place] for members in places.values() for place in members])
    parts = [part(members, covariates) for (_, covariates), members in places.items()]
    return ordered(parts, np.argsort(found))


def targets_of(rows: _Rows, contexts: Sequence[_Series], covariates: int) -> _Rows:
    """The rows of targets among those of all series, [contexts * (V + C), ...] -> [contexts * V, ...]."""
    if not covariates:
        return rows
    each = len(rows) // len(contexts)
    kept = np.arange(len(rows)).reshape(-1, each)[:, : each - covariates].ravel()
    return rows[kept]  # type: ignore[no-any-return]
