"""The explorer's engine: one model, its suite, and cached records of the series that are looked at.

It keeps no state of a user. A request names the series and the ablation, so one model serves many pages.
Only one thread may use a session at a time.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Generator
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from tsprune.anatomy import Component
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.evaluation import spearman_distance
from tsprune.explain.forecast_traits import parroting, scaled_errors
from tsprune.explorer.chosen_series import ChosenSeries
from tsprune.explorer.component_view import ComponentView, component_view, direct_shares, without_one
from tsprune.explorer.few_windows import FewWindows, Losses
from tsprune.hooks.ablation import Ablation, applied
from tsprune.hooks.capture import Reference, reference, reference_contexts
from tsprune.models.forecaster import Forecast, Forecaster
from tsprune.replay import Replay
from tsprune.run_options import RunOptions

SHOWN_LEVELS = (0.1, 0.5, 0.9)
_TOKEN_STEPS = 24  # of the first answer to a click, where a forecast is made step by step
_RECORDS = 6  # series whose clean pass is kept
_LOSSES = 4096  # sets of components whose losses are kept

_Result = TypeVar("_Result")


@dataclasses.dataclass(frozen=True)
class SeriesForecast:
    """A forecast of the chosen series.

    quantiles : float32 [levels, H] at `SHOWN_LEVELS`
    moved : mean absolute change of the median, in seasonal errors; NaN if the history is constant
    spearman : Spearman distance of the medians with and without
    mase : mean absolute error in seasonal errors; NaN without a known future
    parroting : highest correlation of the median with a segment of the context
    """

    quantiles: NDArray[np.float32]
    moved: float
    spearman: float
    mase: float
    parroting: float


@dataclasses.dataclass(frozen=True)
class SeriesView:
    """A series as the page shows it.

    context, target, period : see `ChosenSeries`
    quick_steps : see `Session.quick_steps`
    clean : forecast of the whole model
    """

    name: str
    context: NDArray[np.float32]
    target: NDArray[np.float32] | None
    horizon: int
    period: float
    quick_steps: int
    clean: SeriesForecast


def finished(work: Generator[None, None, _Result]) -> _Result:
    """What a generator returns, at once."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: _Result = end.value
            return result


class Session:
    """One model and a suite of series.

    options : `memory` is shared by the records of the chosen series and of the few windows that losses are
        measured on; `seed` draws those windows

    Variates of a multivariate window are series of their own here.

    Raises TspruneError for a suite without windows, or a model without heads and MLPs.
    """

    def __init__(self, model: Forecaster, suite: Suite, options: RunOptions | None = None) -> None:
        chosen = options or RunOptions()
        self.model, self.suite = model, suite.univariate()
        self.cells = {c.address: c for c in model.anatomy.components() if c.kind in ("head", "mlp")}
        if not self.cells:
            raise TspruneError(f"{model.name} has no heads and MLPs left to explore")
        half = chosen.replace(memory=chosen.memory // 2)
        self.few = FewWindows(model, self.suite, half)
        self._replay = Replay(model, half.memory)
        self._clean: OrderedDict[str, Forecast] = OrderedDict()
        self._losses: OrderedDict[Ablation, Losses] = OrderedDict()
        self._shares: tuple[object, dict[str, float]] = (None, {})  # the last ones, and what they are of

    @cached_property
    def _reference(self) -> Reference:
        contexts = list(reference_contexts(self.model))
        return reference(self.model, contexts, components=list(self.cells.values()))

    def reference_for(self, ablation: Ablation) -> Reference | None:
        """Activations that `ablation` replaces outputs by, recorded once; None for zero."""
        return None if ablation.mode == "zero" or not ablation.components else self._reference

    def component(self, address: str) -> Component:
        """The head or MLP at an address; TspruneError if the model has none there."""
        if address not in self.cells:
            self.model.anatomy.select([address])  # its error names addresses that are near
            raise TspruneError(f"{address} is not a head or an MLP")
        return self.cells[address]

    def series_view(self, series: ChosenSeries) -> SeriesView:
        """The series, and its forecast by the whole model."""
        clean = self._described(series, self._recorded(series))
        return SeriesView(
            series.name,
            series.context,
            series.target,
            series.horizon,
            series.period,
            self.quick_steps(series),
            clean,
        )

    def quick_steps(self, series: ChosenSeries) -> int:
        """Steps of the first answer to a click: all, unless the model decodes step by step."""
        return min(series.horizon, _TOKEN_STEPS) if self.model.anatomy.tokens else series.horizon

    def without(self, series: ChosenSeries, ablation: Ablation, steps: int | None = None) -> SeriesForecast:
        """The forecast under an ablation, of the first `steps` steps; bit-identical to one without replay.

        Raises NotFiniteError if it is not finite.
        """
        clean = self._recorded(series)
        horizon = series.horizon if steps is None else min(steps, series.horizon)
        if not ablation.components:
            return self._described(series, clean.until(horizon))
        kept = self.reference_for(ablation)
        with torch.no_grad(), self.model.quick(), applied(self.model, ablation, reference=kept):
            forecast = self._replay.computed(
                series.key, ablation.components, lambda: self.model.forecast([series.context.copy()], horizon)
            )
        return self._described(series, forecast)

    def losses(self, ablation: Ablation) -> Generator[None, None, Losses]:
        """Yields now and then, and returns the losses on a few windows; kept for the next time."""
        if ablation not in self._losses:
            self._losses[ablation] = yield from self.few.losses(ablation, self.reference_for(ablation))
            if len(self._losses) > _LOSSES:
                self._losses.popitem(last=False)
        return self._losses[ablation]

    def component_view(
        self, series: ChosenSeries, component: Component, ablation: Ablation, **size: int
    ) -> ComponentView:
        """See the function of this name."""
        kept, others = self.reference_for(ablation), without_one(ablation, component)
        if self._shares[0] != (series.key, others):
            self._shares = (series.key, others), direct_shares(self.model, series, others, kept)
        return component_view(self.model, series, component, others, kept, shares=self._shares[1], **size)

    def _recorded(self, series: ChosenSeries) -> Forecast:
        if series.key not in self._clean:
            while len(self._clean) >= _RECORDS:
                self._replay.forget(self._clean.popitem(last=False)[0])
            with torch.no_grad(), self.model.quick(), self._replay.record(series.key):
                self._clean[series.key] = self.model.forecast([series.context.copy()], series.horizon)
        self._clean.move_to_end(series.key)
        return self._clean[series.key]

    def _described(self, series: ChosenSeries, forecast: Forecast) -> SeriesForecast:
        median = np.asarray(forecast.median[0], dtype=np.float64)
        steps = len(median)
        before = np.asarray(self._clean[series.key].median[0, :steps], dtype=np.float64)
        mase = float("nan")
        if series.target is not None:
            mase = float(scaled_errors(median[None], series.target[:steps], series.season_error)[0])
        moved = np.abs(median - before).mean() / (series.season_error or np.nan)
        return SeriesForecast(
            quantiles=forecast.at(SHOWN_LEVELS)[0],
            moved=float(moved),
            spearman=float(spearman_distance(median, before)[0]),
            mase=mase,
            parroting=parroting(median, series.context),
        )
