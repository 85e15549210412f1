"""Forecasts of chaotic trajectories, by a model and by forecasters that only copy.

A chaotic system nearly returns to earlier states and then diverges from them. A copy is hard to beat for some
steps (arXiv 2505.11349) and wrong afterwards, and no calendar can be recognised. Copy-only baselines show
what the model adds to copying, or fails to match.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

import pandas as pd

from tsprune.arguments import checked
from tsprune.data.suite import Suite
from tsprune.evaluation.sampling import sampled
from tsprune.explain.baselines import NadarayaWatson, Parrot
from tsprune.explain.mechanism import head_effects
from tsprune.explain.mechanism_claims import mechanism_table
from tsprune.explain.suite_traits import EXCESS, forecast_traits
from tsprune.models.forecaster import Forecaster, Predictor
from tsprune.run_options import Options, RunOptions
from tsprune.schema import Column, Schema, estimated
from tsprune.statistics import UNKNOWN, Sample, unit_means

PER_SYSTEM = 2  # windows: one per trajectory
MEASURES = ("error", *EXCESS.values())

CHAOS = Schema(
    "chaos",
    Column("forecaster", "the model or a baseline", dtype="text"),
    Column("measure", "error (MASE of these windows), or excess of a trait over the future's", dtype="text"),
    *estimated("mean", "over systems", limits=""),
    Column("systems", "with a value", dtype="count"),
    *estimated("difference", "mean minus the model's, paired by system; NaN for the model itself"),
)


@checked
def chaotic_traits(
    model: Forecaster, trajectories: Suite, *, per_system: int = PER_SYSTEM, **options: Unpack[Options]
) -> pd.DataFrame:
    """Errors and traits of a model, and of baselines that copy, on chaotic trajectories.

    trajectories : one configuration per system, such as `tsprune.data.chaos()`
    per_system : windows per system, at most, evenly spread
    options : keywords of `tsprune.run_options.RunOptions`: `batch_size` and `seed` (of the bootstrap)

    One row per forecaster and measure; columns in `CHAOS`. The baselines, context parroting and
    Nadaraya-Watson regression, see as much history as the model.

    Raises TspruneError for a suite without windows.
    """
    seed = RunOptions(**options).seed
    chosen = sampled(trajectories, model, per_system)
    length = model.context_length
    forecasters: tuple[Predictor, ...] = (
        model,
        Parrot(context_length=length),
        NadarayaWatson(context_length=length),
    )
    found = {one.name: _by_system(forecast_traits(one, chosen, **options)) for one in forecasters}
    own = found[model.name]
    rows = []
    for name, values in found.items():
        for measure in MEASURES:
            row: dict[str, object] = {"forecaster": name, "measure": measure}
            row |= values[measure].estimate(seed=seed).row("mean", count="systems")
            copied = name != model.name
            beyond = values[measure].minus(own[measure]).estimate(seed=seed) if copied else UNKNOWN
            rows.append(row | beyond.row("difference", limits="difference_"))
    return CHAOS.frame(rows)


def _by_system(traits: pd.DataFrame) -> Mapping[str, Sample]:
    """Measure -> its means by system."""
    return {name: Sample.of(*unit_means(traits[name], traits["configuration"])) for name in MEASURES}


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
    effects = head_effects(
        model,
        trajectories,
        sharpness,
        per_configuration=per_system,
        shares=(0.3,),
        draws=3,
        single=False,
        **options,
    )
    return mechanism_table({model.name: effects}, seed=RunOptions(**options).seed)
