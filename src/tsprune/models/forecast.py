"""Forecast: quantiles, and paths where a model samples; as a table and as a picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tsprune.arguments import each, number, whole
from tsprune.errors import TspruneError

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

LEVELS: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_SHOWN = 10  # rows of a forecast in a notebook


@dataclasses.dataclass(frozen=True, repr=False)
class Forecast:
    """A probabilistic forecast of B series over a horizon of H steps.

    quantiles : float32 [B, Q, H]
    levels    : the Q quantile levels, ascending, 0.5 among them
    samples   : float32 [B, S, H] if the model samples paths, else None

    Quantiles are those that upstream returns. Models that emit each level by itself (Chronos-Bolt,
    Chronos-2, Moirai-2) may let neighbouring levels cross; `np.sort(quantiles, axis=1)` puts them in order.
    TimesFM's are put in order by upstream, those of models that sample are in order by construction.
    """

    quantiles: NDArray[np.float32]
    levels: tuple[float, ...] = LEVELS
    samples: NDArray[np.float32] | None = None

    @classmethod
    def of_paths(cls, paths: NDArray[np.float32]) -> Forecast:
        """The forecast of sampled paths [B, S, H], quantiles as gluonts' SampleForecast has them."""
        ordered, last = np.sort(paths, axis=1), paths.shape[1] - 1
        chosen = ordered[:, [round(last * level) for level in LEVELS]]
        return cls(np.ascontiguousarray(chosen), LEVELS, paths)

    def until(self, horizon: int) -> Forecast:
        """The first steps of the forecast."""
        samples = None if self.samples is None else self.samples[..., :horizon]
        return Forecast(np.ascontiguousarray(self.quantiles[..., :horizon]), self.levels, samples)

    def select(self, rows: slice | NDArray[np.int64]) -> Forecast:
        """The forecasts of some of the series."""
        samples = None if self.samples is None else self.samples[rows]
        return Forecast(self.quantiles[rows], self.levels, samples)

    @property
    def median(self) -> NDArray[np.float32]:
        """The 0.5 quantile, [B, H]."""
        return self.quantiles[:, self.levels.index(0.5)]

    def finite(self, horizons: NDArray[np.int64] | None = None) -> NDArray[np.bool_]:
        """Which series have neither NaN nor infinity in a quantile or a path, bool [B].

        horizons : int64 [B], steps of each series that count; None: all
        """
        steps = self.quantiles.shape[-1]
        beyond = np.arange(steps) >= (np.full(1, steps) if horizons is None else horizons)[:, None, None]
        found = (np.isfinite(self.quantiles) | beyond).all(axis=(1, 2))
        if self.samples is not None:
            found = found & (np.isfinite(self.samples) | beyond).all(axis=(1, 2))
        return np.asarray(found)

    @property
    def point(self) -> NDArray[np.float32]:
        """The mean of the paths, or the median of a model that does not sample, [B, H]."""
        return self.median if self.samples is None else self.samples.mean(axis=1)

    def at(self, levels: Sequence[float]) -> NDArray[np.float32]:
        """Quantiles at other levels, float32 [B, len(levels), H], as chronos-forecasting computes them.

        Those of paths are interpolated linearly between the ordered paths. Without paths, known levels are
        `quantiles` unchanged, those between are interpolated linearly between the ordered quantiles, and
        those beyond the outermost are the outermost.

        Raises TspruneError for a level outside [0, 1].
        """
        wanted = np.asarray(each(levels, "levels", partial(number, least=0, most=1)), np.float64)
        if self.samples is not None:
            found = np.quantile(self.samples.astype(np.float64), wanted, axis=1)
            return np.ascontiguousarray(found.transpose(1, 0, 2), dtype=np.float32)
        if set(levels) <= set(self.levels):
            return self.quantiles[:, [self.levels.index(level) for level in levels]]
        places = np.interp(wanted, self.levels, np.arange(len(self.levels)))
        below, weight = np.floor(places).astype(np.int64), (places % 1)[:, None]
        ordered = np.sort(self.quantiles, axis=1)
        above = np.minimum(below + 1, len(self.levels) - 1)
        return (ordered[:, below] * (1 - weight) + ordered[:, above] * weight).astype(np.float32)

    def to_frame(self, ids: Sequence[Any] | None = None, times: ArrayLike | None = None) -> pd.DataFrame:
        """One row per series and step; quantiles are in columns named "0.1" to "0.9", as Chronos has them.

        ids : B names, in the column `item_id`; None: `series`, from 0
        times : [B, H], in the column `timestamp`; [H]: those of every series; None: `step`, from 1

        Raises TspruneError for as many ids or times as there are no series or steps.

        >>> Forecast(np.zeros((2, 1, 3), dtype=np.float32), (0.5,)).to_frame().columns.tolist()
        ['series', 'step', '0.5']
        """
        import pandas as pd  # not needed to forecast

        count, _, steps = self.quantiles.shape
        names = range(count) if ids is None else list(ids)
        moments = np.arange(1, steps + 1) if times is None else np.asarray(times)
        if len(names) != count or moments.shape not in ((steps,), (count, steps)):
            raise TspruneError(f"to_frame takes {count} ids, and times of {steps} steps, for {self!r}")
        columns = {
            "series" if ids is None else "item_id": np.repeat(pd.Index(names), steps),
            "step" if times is None else "timestamp": np.broadcast_to(moments, (count, steps)).ravel(),
        }
        levels = {str(level): self.quantiles[:, place].ravel() for place, level in enumerate(self.levels)}
        return pd.DataFrame(columns | levels)

    def plot(
        self, series: int = 0, context: ArrayLike | None = None, *, colour: str = "#636efa"
    ) -> go.Figure:
        """The median and the band between the outermost levels of one series, after its history.

        series : which of the B series
        context : its history, shown at steps up to 0

        Raises TspruneError if there is no such series.
        """
        import plotly.graph_objects as go  # not needed to forecast

        traces = self.traces(series, colour=colour)
        axes = {"xaxis_title": "steps after the history", "yaxis_title": "value"}
        figure = go.Figure(layout={**axes, "template": "plotly_white"})
        if context is not None:
            past = np.asarray(context, dtype=np.float64)
            figure.add_scatter(x=np.arange(1 - len(past), 1), y=past, name="history", line_color="#444444")
        return figure.add_traces(traces)

    def traces(self, series: int = 0, *, name: str = "", colour: str = "#636efa") -> list[go.Scatter]:
        """The curves of one forecast in a figure: high and low level with a band between them, and median.

        name : follows the names of the curves in the legend
        """
        import plotly.graph_objects as go

        row = whole(series, "series", least=0, most=len(self.quantiles) - 1)
        steps = np.arange(1, self.quantiles.shape[-1] + 1)
        band = f"{self.levels[0]:g} to {self.levels[-1]:g}{name}"
        edge = {"x": steps, "mode": "lines", "line": {"width": 0, "color": colour}}
        return [
            go.Scatter(y=self.quantiles[row, -1], showlegend=False, hoverinfo="skip", **edge),
            go.Scatter(y=self.quantiles[row, 0], fill="tonexty", opacity=0.5, name=band, **edge),
            go.Scatter(x=steps, y=self.median[row], name=f"median{name}", line_color=colour),
        ]

    def __repr__(self) -> str:
        count, _, steps = self.quantiles.shape
        paths = "" if self.samples is None else f", {self.samples.shape[1]} paths each"
        levels = f"{len(self.levels)} levels from {self.levels[0]:g} to {self.levels[-1]:g}"
        return f"<Forecast of {count} series over {steps} steps, {levels}{paths}>"

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        more = f" (first {_SHOWN} of {len(frame)} rows)" if len(frame) > _SHOWN else ""
        return f"<p>{repr(self)[1:-1]}{more}</p>{frame.head(_SHOWN).to_html(index=False, border=0)}"


class NotFiniteError(TspruneError):
    """The output of a network holds NaN or infinity.

    forecast : the whole output, if it is a forecast, so that the finite series can be used
    """

    def __init__(self, message: str, forecast: Forecast | None = None) -> None:
        super().__init__(message)
        self.forecast = forecast


class Predictor(Protocol):
    """Anything that can be evaluated: a Forecaster, or a baseline without a network."""

    @property
    def name(self) -> str: ...

    @property
    def context_length(self) -> int: ...

    def forecast(self, contexts: Sequence[ArrayLike], horizon: int) -> Forecast:
        """See `Forecaster.forecast`."""


def with_gaps(model: Predictor, contexts: Sequence[ArrayLike], horizon: int) -> Forecast:
    """The forecast of `model` even if parts of it are not finite (see `Forecast.finite`).

    Other errors as in `Forecaster.forecast`.
    """
    try:
        return model.forecast(contexts, horizon)
    except NotFiniteError as error:
        if error.forecast is None:
            raise
        return error.forecast


def concatenated(forecasts: Sequence[Forecast]) -> Forecast:
    """Several forecasts as one, their windows after each other."""
    if len(forecasts) == 1:
        return forecasts[0]
    samples = [one.samples for one in forecasts if one.samples is not None]
    return Forecast(
        np.concatenate([one.quantiles for one in forecasts]),
        forecasts[0].levels,
        np.concatenate(samples) if samples else None,
    )
