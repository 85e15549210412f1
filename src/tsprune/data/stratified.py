"""A few windows of a suite that stand for all of it: as many of every configuration, and no draw.

The windows of a configuration have one fixed order, in which calibration and report windows take turns
(`tsprune.data.split`) and each further window lies in the largest gap that the ones before left. So the first
windows of a suite are among those of every larger choice, and work on them is never lost.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import chain, zip_longest

import numpy as np
from numpy.typing import NDArray

from tsprune.arguments import checked
from tsprune.data.split import CALIBRATION_FRACTION, calibration_mask
from tsprune.data.suite import Configuration, Suite

_Rows = NDArray[np.int64]


@checked
def stratified(suite: Suite, count: int, *, seed: int = 0) -> Suite:
    """The suite with at most `count` windows, as many of each configuration where it has them.

    Each variate of a multivariate window counts; the first window is taken whatever its variates.

    seed : of the calibration split

    Raises TspruneError for a count below 1.
    """
    if count >= len(suite):
        return suite
    orders = [window_order(c, seed) for c in suite.configurations]
    turns = [(c, rows) for turn in zip_longest(*orders) for c, rows in enumerate(turn) if rows is not None]
    ends = np.cumsum([len(rows) for _, rows in turns])
    fitting = max(1, int(np.searchsorted(ends, count, side="right")))
    chosen = [[rows for number, rows in turns[:fitting] if number == c] for c in range(len(orders))]
    return _selected(suite, [_joined(rows) for rows in chosen])


def rounds(suite: Suite, per_configuration: int, *, seed: int = 0) -> Iterator[tuple[Suite, list[_Rows]]]:
    """Suites of `per_configuration` windows of each configuration, until every window was in one.

    Each comes with the rows of its windows in `suite`, by configuration of that suite; a configuration
    without windows left is missing in it, and has no rows.
    """
    orders = [window_order(c, seed) for c in suite.configurations]
    for start in range(0, max(map(len, orders), default=0), per_configuration):
        rows = [np.sort(_joined(order[start : start + per_configuration])) for order in orders]
        yield _selected(suite, rows), [one for one in rows if len(one)]


def window_order(configuration: Configuration, seed: int = 0) -> list[_Rows]:
    """The rows of all windows, in the order in which a few of them stand for all.

    The variates of a multivariate window are several rows, which stay together.
    """
    mask = calibration_mask(configuration, CALIBRATION_FRACTION, seed)
    together = configuration.together
    calibrating = np.array([mask[rows[0]] for rows in together], dtype=np.bool_)
    sides = (_spread(np.flatnonzero(side)) for side in (calibrating, ~calibrating))
    turns = chain.from_iterable(zip_longest(*sides))
    return [together[place] for place in turns if place is not None]


def _joined(windows: Sequence[_Rows]) -> _Rows:
    return np.concatenate([np.zeros(0, dtype=np.int64), *windows])


def _spread(rows: _Rows) -> list[int]:
    """`rows` so that the first few are spread over all: by the reversed bits of their places."""
    bits = max(1, len(rows) - 1).bit_length()
    places = (int(f"{place:0{bits}b}"[::-1], 2) for place in range(2**bits))
    return [int(rows[place]) for place in places if place < len(rows)]


def _selected(suite: Suite, rows: list[_Rows]) -> Suite:
    kept = tuple(
        c.select(np.isin(np.arange(len(c)), chosen))
        for c, chosen in zip(suite.configurations, rows, strict=True)
        if len(chosen)
    )
    count = sum(map(len, kept))
    return dataclasses.replace(
        suite, name=f"{suite.name} ({count} of {len(suite)} windows)", configurations=kept
    )
