"""Forecast: quantiles, and paths where a model samples; as a table and as a picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tsprune.arguments import whole
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

    def to_frame(self) -> pd.DataFrame:
        """One row per series and step: columns `series` (from 0), `step` (from 1), and each level.

        >>> Forecast(np.zeros((2, 1, 3), dtype=np.float32), (0.5,)).to_frame().columns.tolist()
        ['series', 'step', 0.5]
        """
        import pandas as pd  # not needed to forecast

        count, _, steps = self.quantiles.shape
        rows = self.quantiles.transpose(0, 2, 1).reshape(count * steps, len(self.levels))
        frame = pd.DataFrame(rows, columns=list(self.levels))
        frame.insert(0, "step", np.tile(np.arange(1, steps + 1), count))
        frame.insert(0, "series", np.repeat(np.arange(count), steps))
        return frame

    def plot(self, series: int = 0, context: ArrayLike | None = None) -> go.Figure:
        """The median and the band between the outermost levels of one series, after its history.

        series : which of the B series
        context : its history, shown at steps up to 0

        Raises TspruneError if there is no such series.
        """
        import plotly.graph_objects as go  # not needed to forecast

        row = whole(series, "series", least=0, most=len(self.quantiles) - 1)
        low, high, middle = self.quantiles[row, 0], self.quantiles[row, -1], self.median[row]
        steps = np.arange(1, len(middle) + 1)
        band = f"{self.levels[0]:g} to {self.levels[-1]:g}"
        figure = go.Figure(layout={"xaxis_title": "step", "template": "plotly_white"})
        if context is not None:
            past = np.asarray(context, dtype=np.float64)
            figure.add_scatter(x=np.arange(1 - len(past), 1), y=past, name="history", line_color="#444444")
        figure.add_scatter(x=steps, y=high, mode="lines", line_width=0, showlegend=False, hoverinfo="skip")
        figure.add_scatter(x=steps, y=low, mode="lines", line_width=0, fill="tonexty", name=band)
        figure.add_scatter(x=steps, y=middle, name="median")
        return figure

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
