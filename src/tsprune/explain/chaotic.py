"""Chaotic trajectories: how a model forecasts them, beside forecasters that only copy.

A chaotic system nearly returns, and then parts from what followed, so a copy is hard to beat for a while
(arXiv 2505.11349) and wrong after; there is no calendar to be recognised. What a model does there beyond
copying, or short of it, shows against forecasters that do nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from tsprune.arguments import checked
from tsprune.data.suite import Suite
from tsprune.evaluation.sampling import sampled
from tsprune.explain.baselines import nadaraya_watson, parrot
from tsprune.explain.mechanism import head_effects
from tsprune.explain.mechanism_claims import mechanism_table
from tsprune.explain.suite_traits import EXCESS, forecast_traits
from tsprune.models.forecaster import Forecaster, Predictor
from tsprune.statistics import Estimate, Sample, unit_means

PER_SYSTEM = 2  # windows: one of each trajectory
PERCENTS = (30,)
DRAWS = 3

MEASURES = ("error", *EXCESS.values())


@checked
def chaotic_traits(
    model: Forecaster, trajectories: Suite, *, per_system: int = PER_SYSTEM, seed: int = 0
) -> pd.DataFrame:
    """How a model, and forecasters that copy, forecast chaotic trajectories.

    trajectories : one configuration a system, as `tsprune.data.chaos()` has them
    per_system : at most so many windows of each, evenly spread

    Of the model, of context parroting and of Nadaraya-Watson regression, which see as much history as the
    model does, one row a measure: forecaster, measure (error: MASE of these windows; excess_parroting,
    seasonality_bias, excess_mean_reversion: over the true future's, see `forecast_traits`), mean, low,
    high (95 % over systems), systems; difference to the model, with difference_low and difference_high
    (paired by system; NaN of the model itself).

    Raises TspruneError for a suite without windows.
    """
    chosen = sampled(trajectories, model, per_system)
    length = model.context_length
    forecasters: tuple[Predictor, ...] = (
        model,
        parrot(context_length=length),
        nadaraya_watson(context_length=length),
    )
    found = {forecaster.name: _by_system(forecaster, chosen) for forecaster in forecasters}
    own = found[model.name]
    rows = []
    for name, values in found.items():
        for measure in MEASURES:
            mean = values[measure].estimate(seed=seed)
            row: dict[str, object] = {"forecaster": name, "measure": measure}
            row |= _columns(mean, ("mean", "low", "high")) | {"systems": mean.count}
            beyond = None if name == model.name else values[measure].minus(own[measure])
            rows.append(row | _difference(beyond, seed))
    return pd.DataFrame(rows)


def _by_system(forecaster: Predictor, trajectories: Suite) -> Mapping[str, Sample]:
    """Measure -> its means by system."""
    frame = forecast_traits(forecaster, trajectories)
    return {measure: Sample.of(*unit_means(frame[measure], frame["configuration"])) for measure in MEASURES}


def _columns(found: Estimate, names: tuple[str, str, str]) -> dict[str, float]:
    return dict(zip(names, (found.value, found.low, found.high), strict=True))


def _difference(values: Sample | None, seed: int) -> dict[str, float]:
    names = ("difference", "difference_low", "difference_high")
    return dict.fromkeys(names, np.nan) if values is None else _columns(values.estimate(seed=seed), names)


@checked
def chaotic_mechanism(
    model: Forecaster,
    trajectories: Suite,
    sharpness: Mapping[str, float],
    *,
    per_system: int = PER_SYSTEM,
    seed: int = 0,
) -> pd.DataFrame:
    """`mechanism_table` on chaotic trajectories, of heads that are sharp or diffuse on other data.

    sharpness : by address, as `attention(...).heads` has it
    per_system : as in `chaotic_traits`

    Three tenths of the heads are ablated, against three random draws; intervals are over systems.

    Raises TspruneError as `head_effects` does.
    """
    effects = head_effects(
        model,
        trajectories,
        sharpness,
        per_configuration=per_system,
        percents=PERCENTS,
        draws=DRAWS,
        single=False,
        seed=seed,
    )
    return mechanism_table({model.name: effects}, seed=seed)
