"""Scores that colour the map, each measured when a page first asks for it.

Effects ablate every cell alone. They advance a little with each request, so that forecasts of other pages
come between, and stop if no page asks any more.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np

from tsprune.anatomy import Component, Kind
from tsprune.evaluation import METRICS
from tsprune.explain.attention_maps import ROW_STATISTICS, attention
from tsprune.explorer.chosen_series import ChosenSeries
from tsprune.explorer.few_windows import Losses
from tsprune.explorer.session import Session, finished
from tsprune.hooks.ablation import Ablation
from tsprune.models.forecaster import NotFiniteError
from tsprune.plugins import Registry
from tsprune.scores import available_scores, score_table

_SLICE_SECONDS = 0.3  # of effects, before the next request has its turn
_FIRST = ("stable_rank", "attention_sharpness", "mase_change", "moved", "parroting", "period_share")
_Value = TypeVar("_Value")
_ATTENTION = ("period_share", "diagonal", "lag")  # of `ROW_STATISTICS`; others have a score of their own


@dataclasses.dataclass(frozen=True)
class MapScore:
    """A score that the map can show.

    unit : "%" of a share or a relative change
    diverging : whether 0 is the middle of the scale
    of_series : whether it depends on the chosen series
    """

    name: str
    about: str
    unit: str = ""
    diverging: bool = False
    of_series: bool = False


@dataclasses.dataclass(frozen=True)
class ScoreValues:
    """Values of the `done` of `total` cells that are measured; NaN where a cell has none."""

    values: Mapping[str, float]
    done: int
    total: int


class MapScores:
    """The scores of one session's cells."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._effects = _effects()
        self._table: dict[str, dict[str, float]] = {}
        self._alone: dict[str, Losses | None] = {}  # None: the forecast was not finite
        self._moved: dict[str, dict[str, float]] = {}  # by series, then by cell
        self.scores = Registry("tsprune.explorer", MapScore, self._all(), noun="score")

    def values(self, name: str, series: ChosenSeries) -> ScoreValues:
        """The values known by now, after a little work on those that are not.

        Raises TspruneError for an unknown score, and where a score needs what the model does not have.
        """
        score = self.scores.named(name)
        cells = self._session.cells
        if score.of_series:
            known = self._moved.setdefault(series.key, {})
            self._advance(known, lambda address: self._movement(series, address))
        elif name in self._effects:
            self._advance(self._alone, self._losses)
            _, read = self._effects[name]
            known = {a: np.nan if one is None else read(one) for a, one in self._alone.items()}
        else:
            known = self._measured(name)
        return ScoreValues(known, len(cells) if name in self._table else len(known), len(cells))

    def _advance(self, known: dict[str, _Value], measure: Callable[[str], _Value]) -> None:
        start = time.perf_counter()
        for address in self._session.cells:
            if address not in known:
                known[address] = measure(address)
                if time.perf_counter() - start > _SLICE_SECONDS:
                    break

    def _movement(self, series: ChosenSeries, address: str) -> float:
        steps = self._session.quick_steps(series)
        try:
            return self._session.without(series, self._ablation(address), steps).moved
        except NotFiniteError:
            return np.nan

    def _losses(self, address: str) -> Losses | None:
        try:
            return finished(self._session.losses(self._ablation(address)))
        except NotFiniteError:
            return None

    def _ablation(self, address: str) -> Ablation:
        return Ablation((self._session.cells[address],))

    def _measured(self, name: str) -> dict[str, float]:
        if name not in self._table:
            session = self._session
            if name in _ATTENTION:
                frame = attention(session.model, session.few.suite, per_configuration=2).heads
            else:
                frame = score_table(session.model, session.few.suite, by=[name], kinds=_kinds(session.cells))
            self._table[name] = dict(zip(frame["address"], frame[name].astype(float), strict=True))
        return self._table[name]

    def _all(self) -> list[MapScore]:
        session, kinds = self._session, _kinds(self._session.cells)
        some = {
            s.name: MapScore(s.name, s.about) for s in available_scores(session.model, session.suite, kinds)
        }
        if "head" in kinds:
            some |= {name: MapScore(name, *_described(name)) for name in _ATTENTION}
        some |= {name: score for name, (score, _) in self._effects.items()}
        some["moved"] = MapScore(
            "moved", "mean change of this forecast without the component, in seasonal errors", of_series=True
        )
        first = [some.pop(name) for name in _FIRST if name in some]
        return [*first, *some.values()]


def _described(statistic: str) -> tuple[str, str]:
    """Meaning and unit of a statistic of attention."""
    about, unit = ROW_STATISTICS[statistic]
    return about, "%" if unit == "share" else ""


def _kinds(cells: Mapping[str, Component]) -> list[Kind]:
    return list(dict.fromkeys(c.kind for c in cells.values()))


def _effects() -> dict[str, tuple[MapScore, Callable[[Losses], float]]]:
    """Effects of a cell alone, and how each is read from its losses."""
    found = {}
    for metric in METRICS.values():
        about = f"relative change of {metric.name} on a few windows without the component"
        score = MapScore(f"{metric.key}_change", about, "%", diverging=True)
        found[score.name] = score, _change_of(metric.name)
    distance = MapScore(
        "spearman_distance",
        "Spearman distance of the median forecasts with and without the component, on a few windows",
    )
    copying = MapScore(
        "parroting",
        "change of parroting without the component: the forecast's highest correlation with a segment of its "
        "context (arXiv 2505.11349), on a few windows",
        diverging=True,
    )
    found[distance.name] = distance, lambda losses: losses.spearman
    found[copying.name] = copying, lambda losses: losses.parroting[1] - losses.parroting[0]
    return found


def _change_of(metric: str) -> Callable[[Losses], float]:
    return lambda losses: losses.metrics[metric].change.value
