"""Portraits of a few telling heads: where each looks in a real window, and what forecasts lack without it.

A telling head is an extreme of what was measured of all heads, so its own numbers flatter it: an
extreme of many is partly luck. What is said of it should be read with the intervals and nulls of its row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from tsprune.anatomy import Component
from tsprune.arguments import checked
from tsprune.data.suite import Suite
from tsprune.evaluation import unforecastable
from tsprune.evaluation.sampling import PER_CONFIGURATION, sampled
from tsprune.explain.examples import Example, ranked_examples
from tsprune.explain.forecast_traits import dominant_period, filled, seasonal_share
from tsprune.explain.mechanism import BATCH_SIZE, MEMORY
from tsprune.hooks.ablation import Ablation
from tsprune.hooks.attention import AttentionMap, watching
from tsprune.models.forecaster import Forecaster
from tsprune.sweeps.engine import run
from tsprune.sweeps.sweep_result import CLEAN

POSITIONS = 64  # of the map that is shown, at most
CLEAR = 0.3  # share of a window's variance at its period from which its season is called clear

# reason -> (column of `Explanation.heads`, whether its highest value is meant)
TELLING = {
    "the sharpest": ("sharpness", True),
    "the most diffuse": ("sharpness", False),
    "the best at induction": ("followed_score", True),
    "the one without which parroting falls most": ("parroting", False),
    "the one without which the error grows most": ("mase", True),
}


@dataclasses.dataclass(frozen=True)
class Glance:
    """Where one head looks in one real window.

    configuration : the window is of
    series : the context [T] that the network was given
    weights : [Q, K], rows sum to 1 (or are 0: padding)
    queries, keys : [Q] and [K], their time in steps after the end of the context (see `TimeAxis`), NaN
        where they have none
    span : time steps a key stands for
    period : dominant period of the context, in steps; NaN if there is none
    """

    configuration: str
    series: NDArray[np.float32]
    weights: NDArray[np.float32]
    queries: NDArray[np.float32]
    keys: NDArray[np.float32]
    span: int
    period: float


@dataclasses.dataclass(frozen=True)
class Portrait:
    """One head.

    reasons : what it is the extreme of (`TELLING`)
    glance : None for heads that attend over series, or never ran
    examples : windows forecast with and without it (`examples.RANKS`)
    """

    address: str
    reasons: tuple[str, ...]
    glance: Glance | None
    examples: tuple[Example, ...]


def telling_heads(heads: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """Address -> reasons, of the extremes of `Explanation.heads` in `TELLING`.

    A column that is not there, or says nothing, names no head.
    """
    chosen: dict[str, tuple[str, ...]] = {}
    for reason, (column, highest) in TELLING.items():
        values = heads[column].astype(float) if column in heads else pd.Series(dtype=float)
        if values.notna().any():
            address = str(heads["address"][values.idxmax() if highest else values.idxmin()])
            chosen[address] = (*chosen.get(address, ()), reason)
    return chosen


@checked
def portraits(
    model: Forecaster,
    suite: Suite,
    heads: pd.DataFrame,
    *,
    per_configuration: int = PER_CONFIGURATION,
) -> tuple[Portrait, ...]:
    """Portraits of the telling heads of `Explanation.heads`, all of them looking at one window.

    per_configuration : examples are chosen from at most so many windows of each configuration

    Raises TspruneError for a suite without windows.
    """
    suite.require_windows()
    chosen = telling_heads(heads)
    components = {address: Component.parse(address) for address in chosen}
    some = sampled(suite, model, per_configuration)
    cells = {address: Ablation((component,)) for address, component in components.items()}
    result = run(
        model,
        some,
        list(cells.values()),
        batch_size=BATCH_SIZE,
        keep={CLEAN, *cells.values()},
        memory=MEMORY,
    )
    glances = glances_at(model, some, list(components.values()))
    return tuple(
        Portrait(
            address,
            reasons,
            glances.get(components[address]),
            ranked_examples(result, some, cells[address], model.context_length),
        )
        for address, reasons in chosen.items()
    )


def glances_at(model: Forecaster, suite: Suite, heads: Sequence[Component]) -> dict[Component, Glance]:
    """What each of `heads` over time attends to in the window of `telling_window`."""
    configuration, series = telling_window(model, suite)
    period = dominant_period(series)
    found: dict[Component, Glance] = {}

    def look(seen: AttentionMap) -> None:
        site = model.anatomy.site(seen.component)
        for head in heads:
            # a family may run several passes over a window: the first is the window as it is
            if head in found or dataclasses.replace(head, head=None) != seen.component or site.axis != "time":
                continue
            assert head.head is not None
            axis = model.anatomy.key_stack(seen.component).time
            queries, keys = (times.numpy(force=True) for times in seen.times)
            weights = seen.weights[0, site.position(head.head)].float().numpy(force=True)
            span = axis.span if axis is not None else 1
            found[head] = Glance(configuration, series, weights, queries, keys, span, period)

    with torch.no_grad(), watching(model, look):
        model.teacher_forced([np.array(series)])
    return found


def telling_window(model: Forecaster, suite: Suite) -> tuple[str, NDArray[np.float32]]:
    """The window with the clearest season that positions can tell: (configuration, end of its context).

    It is as long as the context allows and `POSITIONS` show. First come contexts without gaps of that
    length, of them those with a clear season (`CLEAR`) of two positions or more that is there four times,
    of them the one with the largest share of variance at its period.
    """
    axis = model.anatomy.stacks[0].time
    span = axis.span if axis is not None else 1
    steps = min(model.context_length, POSITIONS * span)
    best: tuple[tuple[bool, bool, float], str, NDArray[np.float32]] | None = None
    for c in suite.configurations:
        lost = {row for row, _ in unforecastable(c, model.context_length)}
        for row in range(len(c)):
            if row in lost:
                continue
            series = c.contexts[row][-steps:]
            period = dominant_period(series)
            share = seasonal_share(filled(series), period)
            whole = len(series) == steps and bool(np.isfinite(series).all())
            told = 2 * span <= period <= steps / 4 and share >= CLEAR
            order = whole, bool(told), float(np.nan_to_num(share))
            if best is None or order > best[0]:
                best = order, c.name, series
    assert best is not None, "a suite without windows"
    return best[1], best[2]
