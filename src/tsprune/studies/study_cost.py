"""The cost of a study before it begins: stage by stage, from a few timed forecasts."""

from __future__ import annotations

import numpy as np

from tsprune.data.chaos import chaos
from tsprune.data.suite import Suite
from tsprune.explain.explanation_cost import explanation_seconds
from tsprune.models.forecaster import Forecaster
from tsprune.run_options import RunOptions
from tsprune.scores import rank
from tsprune.studies.experiments import study_plan
from tsprune.studies.removals import REMOVAL_SAVINGS
from tsprune.studies.score_agreement import SCORING_PASSES, scored_windows
from tsprune.studies.study_settings import EXPLAINED_DRAWS, EXPLAINED_SHARES, EXPLAINED_WINDOWS, StudySettings
from tsprune.sweeps.cell_plan import make_plan
from tsprune.sweeps.cost_estimate import StageCost, SweepRates, measured_rates
from tsprune.sweeps.store import open_store

LARGE = 50_000_000  # parameters
_INTERVAL_SECONDS = 0.02  # for an ablation's intervals and its place in the tables
# of what does not grow with the model: intervals, bootstraps of the claims, pictures
_SECONDS = {"scores": 4.0, "headline": 4.0, "report": 11.0}


def study_cost(model: Forecaster, settings: StudySettings) -> list[StageCost]:
    """The stages of a study of one model without a budget; finished work in a store costs nothing."""
    options, suite = settings.options, settings.suite
    ranking = rank(model)
    # attention maps are not known yet; any other order of the heads leads to about as many ablations
    maps = ranking.assign(score=np.random.default_rng(options.seed).permutation(len(ranking)))
    wanted = study_plan(model.anatomy, ranking, options.seed, maps).ablations()
    with open_store(options.store) as store:
        plan = make_plan(
            model, suite, wanted, batch_size=options.batch_size, memory=options.memory, store=store
        )
    fresh = make_plan(model, suite, wanted, batch_size=options.batch_size, memory=options.memory)
    rates = measured_rates(model, fresh, fresh.units(), memory=options.memory)
    units, once = plan.units(), rates.forward(fresh.batches)
    most = rates.peak_bytes(model, fresh.batches, options.memory)
    few = scored_windows(model, suite, options.seed)
    found = {
        "scores": (0, SCORING_PASSES * once * len(few) / max(1, len(suite))),
        "ablating": (sum(unit.forecasts for unit in units), rates.sweep(plan)),
        "intervals": (0, _INTERVAL_SECONDS * len(wanted)),
        "headline": (2 * len(fresh.batches), 2 * once),
        "removing": ((1 + len(REMOVAL_SAVINGS)) * len(fresh.batches), (1 + len(REMOVAL_SAVINGS)) * once),
    }
    costs = [
        StageCost(stage, count, seconds + _SECONDS.get(stage, 0.0), most)
        for stage, (count, seconds) in found.items()
    ]
    if settings.explain:
        costs += explanation_cost(model, rates, suite, EXPLAINED_WINDOWS, options, peak_bytes=most)
    return [*costs, StageCost("report", 0, _SECONDS["report"], most)]


def large_study_seconds(model: Forecaster, settings: StudySettings, *, least: int = LARGE) -> float | None:
    """Expected seconds of a study, if the model has more than `least` parameters and runs on a CPU."""
    if model.parameter_count <= least or model.device.type != "cpu":
        return None
    return sum(one.seconds for one in study_cost(model, settings))


def explanation_cost(
    model: Forecaster,
    rates: SweepRates,
    suite: Suite,
    per_configuration: int,
    options: RunOptions,
    *,
    peak_bytes: int,
) -> list[StageCost]:
    """The stages of a study's explanation."""
    seconds = explanation_seconds(
        model,
        rates,
        suite,
        per_configuration,
        sets=len(EXPLAINED_SHARES) * (2 + EXPLAINED_DRAWS),
        trajectories=chaos(),
        batch_size=options.batch_size,
    )
    return [StageCost(stage, 0, one, peak_bytes) for stage, one in seconds.items()]
