"""A forecast of one series with and without components, as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from tsprune.anatomy import Selection
from tsprune.arguments import checked
from tsprune.choices import Mode
from tsprune.hooks.ablation import ablate
from tsprune.hooks.capture import Reference
from tsprune.models.forecaster import Forecaster

if TYPE_CHECKING:
    import plotly.graph_objects as go

_BEFORE, _AFTER = "#0072b2", "#d55e00"
_HORIZONS, _STEPS = 4, 48  # of history that is drawn: so many horizons, and at least so many steps


@checked
def plot_ablation(
    model: Forecaster,
    series: ArrayLike,
    components: Selection,
    *,
    horizon: int,
    mode: Mode = "zero",
    reference: Reference | None = None,
    seed: int = 0,
) -> go.Figure:
    """The end of one series, and its forecasts with and without components of the model.

    series : one-dimensional; as in `Forecaster.forecast`
    components, mode, reference, seed : as in `tsprune.ablate`

    Bands are between the outermost levels. Raises TspruneError as `Forecaster.forecast` and `tsprune.ablate`
    do.

    >>> import tsprune
    >>> model = tsprune.load("bundled:timesfm")
    >>> figure = tsprune.plot_ablation(model, range(100), "stack.3.self.head.*", horizon=12)
    >>> [trace.name for trace in figure.data if trace.name and "median" in trace.name]
    ['median', 'median without stack.3.self.head.*']
    """
    before = model.forecast([series], horizon)
    with ablate(model, components, mode=mode, reference=reference, seed=seed) as removed:
        after = model.forecast([series], horizon)
    shown = max(_HORIZONS * horizon, _STEPS)
    figure = before.plot(context=np.asarray(series)[-shown:], colour=_BEFORE)
    names = components if isinstance(components, str) else ", ".join(c.address for c in removed[:3])
    more = f" and {len(removed) - 3} more" if not isinstance(components, str) and len(removed) > 3 else ""
    figure.add_traces(after.traces(name=f" without {names}{more}", colour=_AFTER))
    return figure.update_layout(title=f"{model.name}: mode {mode}")
