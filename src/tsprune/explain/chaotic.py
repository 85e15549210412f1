"""Forecasts of chaotic trajectories, by a model and by forecasters that only copy.

A chaotic system nearly returns to earlier states and then diverges from them. A copy is hard to beat for some
steps (arXiv 2505.11349) and wrong afterwards, and no calendar can be recognised. Copy-only baselines show
what the model adds to copying, or fails to match.

Context parroting (Zhang & Gilpin, arXiv 2505.11349) copies the steps after the motif most similar to the last
one. Nadaraya-Watson regression, of which softmax attention is an instance, averages over all motifs.
Both replace a model in `tsprune.evaluate`.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from tsprune.arguments import RULES, checked
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.evaluation.sampling import sampled
from tsprune.explain.forecast_traits import EXCESS, filled, forecast_traits
from tsprune.explain.mechanism import head_effects
from tsprune.explain.mechanism_claims import mechanism_table
from tsprune.models.contexts import checked_contexts
from tsprune.models.forecaster import LEVELS, Forecast, Forecaster, Predictor
from tsprune.models.variates import rows_of
from tsprune.progress import Pieces, showing, within
from tsprune.run_options import Options, RunOptions
from tsprune.schema import Column, Schema, estimated
from tsprune.statistics import UNKNOWN, Sample, unit_means
from tsprune.statistics.estimate import Array

PER_SYSTEM = 2  # windows: one per trajectory
# time of the traits of a model, beside which that of the copiers, no networks, is short (see `Pieces`)
_PIECES = 1.0, 0.0, 0.0
# the same of all traits, of the ablations (6 to 11: by what replay saves), and of the statistics after them
PIECES = 1.0, 8.5, 0.5
MEASURES = ("error", *EXCESS.values())

CHAOS = Schema(
    "chaos",
    Column("forecaster", "the model or a baseline", dtype="text"),
    Column("measure", "error (MASE of these windows), or excess of a trait over the future's", dtype="text"),
    *estimated("mean", "over systems", limits=""),
    Column("systems", "with a value", dtype="count"),
    *estimated("difference", "mean minus the model's, paired by system; NaN for the model itself"),
)


@dataclasses.dataclass(frozen=True)
class _Motifs(abc.ABC):
    """A forecaster that weighs past motifs of `motif` steps within the last `context_length` steps."""

    motif: int = 10
    context_length: int = dataclasses.field(default=2048, kw_only=True)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, RULES[field.name](getattr(self, field.name)))
        if self.context_length < 2:
            raise TspruneError("the context length must be at least 2")

    @property
    @abc.abstractmethod
    def name(self) -> str: ...

    @abc.abstractmethod
    def _weights(self, squares: Array, variance: float) -> Array:
        """Weights of motifs at mean squared distances `squares` [M]; `variance` of the context."""

    def forecast(self, contexts: Sequence[ArrayLike], horizon: int) -> Forecast:
        """Forecasts B series: weighted quantiles of the steps that followed past motifs.

        Gaps are filled linearly. A copy that reaches the end of the history repeats itself. Histories
        shorter than the motif use shorter motifs; a history of one step is repeated.
        """
        series = [filled(x[-self.context_length :]) for x in rows_of(checked_contexts(contexts, horizon))]
        quantiles = np.stack([self._quantiles(x, horizon) for x in series])
        return Forecast(quantiles.astype(np.float32), LEVELS)

    def _quantiles(self, x: Array, horizon: int) -> Array:
        if len(x) == 1:
            return np.full((len(LEVELS), horizon), x[0])
        length = min(self.motif, len(x) - 1)
        squares = motif_distances(x, length)
        weights = self._weights(squares, float(x.var()))
        starts = length + np.flatnonzero(weights)
        return weighted_quantiles(followers(x, starts, horizon), weights[weights > 0])


def motif_distances(x: Array, length: int) -> Array:
    """Mean squared distance of every earlier motif to the last `length` steps of x [T], [T - length]."""
    motifs = np.lib.stride_tricks.sliding_window_view(x, length)
    return np.asarray(np.square(motifs[:-1] - motifs[-1]).mean(axis=1))


def followers(x: Array, starts: NDArray[np.int64], horizon: int) -> Array:
    """x from each of `starts` [M] on, [M, horizon]; a part that reaches the end of x repeats itself."""
    left = (len(x) - starts)[:, None]
    return np.asarray(x[starts[:, None] + np.arange(horizon) % left])


def weighted_quantiles(values: Array, weights: Array) -> Array:
    """Quantiles [9, H] at .1, ..., .9 of `values` [M, H] with `weights` [M]: the weighted inverse CDF."""
    order = values.argsort(axis=0)
    cumulative = weights[order].cumsum(axis=0)
    cumulative /= cumulative[-1]
    ordered = np.take_along_axis(values, order, axis=0)
    index = [(cumulative < level - 1e-12).sum(axis=0) for level in LEVELS]
    return np.stack([np.take_along_axis(ordered, at[None], axis=0)[0] for at in index])


class Parrot(_Motifs):
    """Context parroting: copies the steps after the past motif nearest to the last one.

    motif : steps compared; context_length : steps of history used. Of equal motifs the latest is copied.

    Raises TspruneError for numbers out of range.
    """

    @property
    def name(self) -> str:
        return f"parrot (motif of {self.motif})"

    def _weights(self, squares: Array, variance: float) -> Array:
        nearest = np.flatnonzero(squares <= squares.min() + 1e-12 * variance)[-1]
        return np.asarray(np.arange(len(squares)) == nearest, dtype=np.float64)


@dataclasses.dataclass(frozen=True)
class NadarayaWatson(_Motifs):
    """Nadaraya-Watson regression: weighs the steps after each past motif by a Gaussian kernel.

    motif, context_length : as in `Parrot`
    bandwidth : of the kernel, in standard deviations of the context, per step of the motif

    Raises TspruneError for numbers out of range.
    """

    bandwidth: float = dataclasses.field(default=0.1, kw_only=True)

    @property
    def name(self) -> str:
        return f"nadaraya-watson (motif of {self.motif}, bandwidth {self.bandwidth:g})"

    def _weights(self, squares: Array, variance: float) -> Array:
        scale = 2 * self.bandwidth**2 * variance
        if scale == 0:
            return np.ones(len(squares))
        return np.asarray(np.exp(-(squares - squares.min()) / scale))


@checked
def chaotic_traits(
    model: Forecaster, trajectories: Suite, *, per_system: int = PER_SYSTEM, **options: Unpack[Options]
) -> pd.DataFrame:
    """Errors and traits of a model, and of baselines that copy, on chaotic trajectories.

    trajectories : one configuration per system, such as `tsprune.data.chaos()`
    per_system : windows per system, at most, evenly spread
    options : keywords of `tsprune.run_options.RunOptions`: `batch_size`, `seed` (of the bootstrap) and
        `progress` (stage "chaos")

    One row per forecaster and measure; columns in `CHAOS`. The baselines, context parroting and
    Nadaraya-Watson regression, see as much history as the model.

    Raises TspruneError for a suite without windows.
    """
    how = RunOptions(**options)
    chosen = sampled(trajectories, model, per_system)
    length = model.context_length
    copiers = Parrot(context_length=length), NadarayaWatson(context_length=length)
    forecasters: tuple[Predictor, ...] = (model, *copiers)
    found: dict[str, dict[str, Sample]] = {}  # measure -> its means by system
    with showing(how.progress) as progress:
        pieces = Pieces(within(progress, "chaos"), _PIECES)
        for one in forecasters:
            traits = forecast_traits(one, chosen, **how.keywords(progress=pieces.next()))
            systems = traits["configuration"]
            found[one.name] = {name: Sample.of(*unit_means(traits[name], systems)) for name in MEASURES}
    own = found[model.name]
    rows = []
    for name, values in found.items():
        for measure in MEASURES:
            row: dict[str, object] = {"forecaster": name, "measure": measure}
            row |= values[measure].estimate(seed=how.seed).row("mean", count="systems")
            copied = name != model.name
            beyond = values[measure].minus(own[measure]).estimate(seed=how.seed) if copied else UNKNOWN
            rows.append(row | beyond.row("difference", limits="difference_"))
    return CHAOS.frame(rows)


@checked
def chaotic_mechanism(
    model: Forecaster,
    trajectories: Suite,
    sharpness: Mapping[str, float],
    *,
    per_system: int = PER_SYSTEM,
    **options: Unpack[Options],
) -> pd.DataFrame:
    """`mechanism_table` on chaotic trajectories, for heads ranked by their sharpness on other data.

    sharpness : by address, as in `attention(...).heads`
    per_system, options : as in `chaotic_traits`

    30 % of the heads are ablated, against three random draws; intervals are over systems.

    Raises TspruneError as `head_effects` does.
    """
    sets: dict[str, Any] = {"shares": (0.3,), "draws": 3, "single": False}
    effects = head_effects(model, trajectories, sharpness, per_configuration=per_system, **sets, **options)
    return mechanism_table({model.name: effects}, seed=RunOptions(**options).seed)
