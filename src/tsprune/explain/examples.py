"""Real windows forecast with and without an ablation, chosen by the change of their forecast."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tsprune.data.suite import Configuration, Suite
from tsprune.evaluation import seasonal_errors
from tsprune.hooks.ablation import Ablation
from tsprune.sweeps.sweep_result import CLEAN, SweepResult

_SHOWN_STEPS = 192  # of history
# label -> place among all windows in order of the change of their forecast
RANKS: Mapping[str, float] = {"typical": 0.5, "1 in 10 moves more": 0.9, "moved most": 1.0}


@dataclasses.dataclass(frozen=True)
class Example:
    """One real window forecast by the model before and after an ablation.

    context : the last steps of the history [T]
    target : the true future [H]
    before, after : quantile forecasts [Q, H] at `levels`
    ablation : description of the ablation, such as "50 % of the middle layers' heads"
    """

    configuration: str
    context: NDArray[np.float32]
    target: NDArray[np.float32]
    before: NDArray[np.float32]
    after: NDArray[np.float32]
    levels: tuple[float, ...]
    ablation: str


def moved(result: SweepResult, suite: Suite, ablation: Ablation) -> list[tuple[float, int, int]]:
    """(distance, configuration, place) of every window, nearest first.

    distance : mean absolute change of the median forecast, in seasonal errors (the units of MASE)
    configuration, place : numbers in the suite, and among the windows that were forecast
    """
    found = []
    for number, c in enumerate(suite.configurations):
        rows = result.rows.get(c.name)
        if rows is None:
            continue
        errors = seasonal_errors([c.contexts[row] for row in rows], c.season)
        before, after = (result.forecasts[cell, c.name].median for cell in (CLEAN, ablation))
        with np.errstate(all="ignore"):
            distances = np.abs(after - before).mean(axis=1, dtype=np.float64) / errors
        known = np.flatnonzero(np.isfinite(distances))
        found += [(float(distances[place]), number, int(place)) for place in known]
    return sorted(found)


def ranked_examples(
    result: SweepResult, suite: Suite, ablation: Ablation, context_length: int
) -> tuple[Example, ...]:
    """The windows at `RANKS` of the change by `ablation`, each once; their `ablation` gives the change.

    `result` must hold the forecasts of `CLEAN` and `ablation`.
    """
    ordered = moved(result, suite, ablation)
    chosen: dict[int, str] = {}
    for words, rank in RANKS.items() if ordered else ():
        chosen.setdefault(round(rank * (len(ordered) - 1)), words)
    found = []
    for number, words in chosen.items():
        distance, configuration, place = ordered[number]
        text = f"{words}: by {distance:.3g} seasonal errors"
        c = suite.configurations[configuration]
        found.append(example(result, c, place, ablation, described=text, context_length=context_length))
    return tuple(found)


def example(
    result: SweepResult,
    configuration: Configuration,
    place: int,
    ablation: Ablation,
    *,
    described: str,
    context_length: int,
) -> Example:
    """One window of a sweep as an example; `place` is its number among those that were forecast."""
    row = int(result.rows[configuration.name][place])
    before = result.forecasts[CLEAN, configuration.name]
    return Example(
        configuration=configuration.name,
        context=configuration.contexts[row][-min(_SHOWN_STEPS, context_length) :],
        target=configuration.targets[row],
        before=before.quantiles[place],
        after=result.forecasts[ablation, configuration.name].quantiles[place],
        levels=before.levels,
        ablation=described,
    )
