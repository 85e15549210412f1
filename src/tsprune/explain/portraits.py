"""Portraits of extreme heads: the attention of each on a real window, and forecasts without it.

The numbers of an extreme head are biased: the extreme of many measurements is partly luck. Read them with the
intervals and nulls of its row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Unpack

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
from tsprune.explain.mechanism import forecast_options
from tsprune.explain.window_means import span_of
from tsprune.hooks.ablation import Ablation
from tsprune.hooks.attention import AttentionMap, watching
from tsprune.models.forecaster import Forecaster
from tsprune.run_options import Options, RunOptions
from tsprune.sweeps.engine import run
from tsprune.sweeps.sweep_result import CLEAN

_POSITIONS = 64  # shown of a map, at most
_CLEAR = 0.3  # share of a window's variance at its period that makes a clear season

# reason -> (column of `Explanation.heads`, whether its highest value is the extreme)
EXTREMES = {
    "the sharpest": ("sharpness", True),
    "the most diffuse": ("sharpness", False),
    "the best at induction": ("followed_score", True),
    "the one without which parroting falls most": ("parroting", False),
    "the one without which the error grows most": ("mase", True),
}


@dataclasses.dataclass(frozen=True)
class Glance:
    """Attention of one head on one real window.

    configuration : name
    series : context [T] given to the network
    weights : [Q, K], rows sum to 1 (or are 0: padding)
    queries, keys : [Q] and [K], time in steps after the end of `series`, NaN without one
    span : time steps per key
    period : dominant period of the context, in steps; NaN without one
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
    """One extreme head.

    reasons : its extremes (`EXTREMES`)
    glance : None for heads that attend over series, or never ran
    examples : windows forecast with and without the head (`examples.RANKS`)
    """

    address: str
    reasons: tuple[str, ...]
    glance: Glance | None
    examples: tuple[Example, ...]


def extreme_heads(heads: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """Address -> reasons, for the `EXTREMES` of `Explanation.heads`; columns without a value are skipped."""
    chosen: dict[str, tuple[str, ...]] = {}
    for reason, (column, highest) in EXTREMES.items():
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
    **options: Unpack[Options],
) -> tuple[Portrait, ...]:
    """Portraits of the extreme heads of `Explanation.heads`, all on the same window.

    per_configuration : windows per configuration, at most, from which examples are chosen
    options : as of `head_effects`

    Raises TspruneError for a suite without windows.
    """
    suite.require_windows()
    chosen = forecast_options(RunOptions(**options))
    reasons = extreme_heads(heads)
    some = sampled(suite, model, per_configuration)
    cells = {Component.parse(address): Ablation((Component.parse(address),)) for address in reasons}
    every = list(cells.values())
    result = run(model, some, every, keep={CLEAN, *every}, stage="portraits", **chosen.keywords())
    glances, found = glances_at(model, some, list(cells)), []
    for head, cell in cells.items():
        shown = ranked_examples(result, some, cell, model.context_length)
        found.append(Portrait(head.address, reasons[head.address], glances.get(head), shown))
    return tuple(found)


def glances_at(model: Forecaster, suite: Suite, heads: Sequence[Component]) -> dict[Component, Glance]:
    """Attention over time of each of `heads` on the window of `clearest_window`."""
    configuration, series = clearest_window(model, suite)
    period = dominant_period(series)
    found: dict[Component, Glance] = {}

    def look(seen: AttentionMap) -> None:
        site = model.anatomy.site(seen.component)
        for head in heads:
            # a family may run several passes over a window: the first one is of the window unchanged
            if head in found or dataclasses.replace(head, head=None) != seen.component or site.axis != "time":
                continue
            assert head.head is not None
            queries, keys = (times.numpy(force=True) for times in seen.times)
            weights = seen.weights[0, site.position(head.head)].float().numpy(force=True)
            span = span_of(model.anatomy.key_stack(seen.component))
            found[head] = Glance(configuration, series, weights, queries, keys, span, period)

    with torch.no_grad(), watching(model, look):
        output = model.teacher_forced([np.array(series)])
    # a model of tokens is given the last steps one by one: its times start before them
    late = output.shape[1] if model.anatomy.tokens else 0
    return {
        head: dataclasses.replace(one, queries=one.queries - late, keys=one.keys - late)
        for head, one in found.items()
    }


def clearest_window(model: Forecaster, suite: Suite) -> tuple[str, NDArray[np.float32]]:
    """The window with the clearest season that positions can resolve: (configuration, end of its context).

    The end has as many steps as the context length and `_POSITIONS` allow. Contexts of that length without
    gaps come first; among them those with a clear season (`_CLEAR`) of at least two positions and at least
    four periods; among these the one with the largest share of variance at its period.
    """
    span = span_of(model.anatomy.stacks[0])
    steps = min(model.context_length, _POSITIONS * span)
    best: tuple[tuple[bool, bool, float], str, NDArray[np.float32]] | None = None
    for c in suite.configurations:
        lost = {row for row, _ in unforecastable(c, model.context_length)}
        for row in sorted(set(range(len(c))) - lost):
            series = c.contexts[row][-steps:]
            period = dominant_period(series)
            share = seasonal_share(filled(series), period)
            whole = len(series) == steps and bool(np.isfinite(series).all())
            resolved = 2 * span <= period <= steps / 4 and share >= _CLEAR
            order = whole, bool(resolved), float(np.nan_to_num(share))
            if best is None or order > best[0]:
                best = order, c.name, series
    assert best is not None, "a suite without windows"
    return best[1], best[2]
