"""The measurements of one checkpoint that its part of a study is made from, whole or within a budget."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from tsprune.data.chaos import chaos
from tsprune.data.suite import Suite
from tsprune.evaluation.evaluate import ModelStatistics, evaluation_table
from tsprune.explain.explanation_cost import explanation_seconds
from tsprune.hooks.ablation import Ablation
from tsprune.models.forecaster import Forecaster
from tsprune.progress import Progress
from tsprune.schema import Table
from tsprune.scores import rank
from tsprune.studies.budget import (
    NOT_MEASURED,
    PER_ROUND,
    Budget,
    BudgetedSweeps,
    bisect_heads_at,
    decided_points,
)
from tsprune.studies.claims import Headline, headline_of
from tsprune.studies.experiments import PRUNED_PERCENT, StudyPlan, run_completely, study_plan
from tsprune.studies.removals import Removal, removals
from tsprune.studies.score_agreement import SCORING_PASSES, StudyScores, measure_scores
from tsprune.studies.study_settings import EXPLAINED_DRAWS, EXPLAINED_SHARES, EXPLAINED_WINDOWS, StudySettings
from tsprune.sweeps.sweep_result import CLEAN, SweepResult


@dataclasses.dataclass(frozen=True)
class Measurements:
    """All measurements of one model that the tables are made from.

    diffuse : ablation of the middle layers' heads of highest stable rank; None if there are too few
    headline : of the claim about middle layers
    removed : growing removals, and a sweep with their ablations
    missing : (experiment, what of it was not measured within the budget)
    explained_windows : of each configuration, for the explanation; 0 leaves it out
    """

    ranking: pd.DataFrame
    scores: StudyScores
    wanted: StudyPlan
    baseline: Table
    result: SweepResult
    diffuse: Ablation | None
    headline: Headline
    removed: tuple[Sequence[Removal], SweepResult]
    missing: Sequence[tuple[str, str]] = ()
    explained_windows: int = EXPLAINED_WINDOWS


def measure(model: Forecaster, settings: StudySettings, progress: Progress) -> Measurements:
    """Every measurement of a study, without a budget; TspruneError if an ablation fails."""
    options, suite = settings.options, settings.suite
    ranking = rank(model)
    scores = measure_scores(model, suite, options.replace(progress=progress))
    wanted = study_plan(model.anatomy, ranking, options.seed, scores.by_maps(ranking))
    pruned = {(key.strategy, key.percent): ablation for key, ablation in wanted.pruning.items()}
    diffuse = pruned.get(("high-to-low", PRUNED_PERCENT))
    result = run_completely(
        model,
        suite,
        wanted.ablations(),
        options,
        keep=[CLEAN] if diffuse is None else [CLEAN, diffuse],
        progress=progress,
        stage="ablating",
    )

    def one(ablation: Ablation) -> SweepResult:
        return run_completely(model, suite, [ablation], options, progress=progress, stage="headline")

    headline = headline_of(model, suite, ranking, wanted, result, settings.calibration, one, options.seed)
    steps = removals(model, wanted.singles, result, settings.calibration)
    ablations = [one.ablation for one in steps]
    second = result
    if steps:
        second = run_completely(model, suite, ablations, options, progress=progress, stage="removing")
    baseline = _baseline(model.name, suite, result)
    return Measurements(ranking, scores, wanted, baseline, result, diffuse, headline, (steps, second))


def measure_within(model: Forecaster, settings: StudySettings, progress: Progress) -> Measurements:
    """`measure` within the budget: what is more important first, on as many windows as fit."""
    assert settings.budget is not None
    budget, options, suite = Budget(settings.budget), settings.options, settings.suite
    sweeps = BudgetedSweeps(model, suite, budget, options, progress)
    ranking = rank(model)
    wanted = study_plan(model.anatomy, ranking, options.seed)
    progress("timing", 0, 0)
    sweeps.expect(wanted.ablations())
    sweeps.first(list(wanted.layers.values()), "layers")
    scores, few = _scores_within(model, settings, sweeps, progress)
    wanted = study_plan(model.anatomy, ranking, options.seed, scores.by_maps(ranking))
    sweeps.want(wanted.ablations())
    diffuse = {(key.strategy, key.percent): one for key, one in wanted.pruning.items()}.get(
        ("high-to-low", PRUNED_PERCENT)
    )
    sweeps.keep = [] if diffuse is None else [diffuse]
    claimed = [one for key, one in wanted.pruning.items() if key.percent == PRUNED_PERCENT]
    sweeps.first(claimed, "pruning")
    sweeps.first(list(wanted.heads.values()), "heads")
    masks = settings.calibration
    steps = removals(model, wanted.singles, sweeps.result(), masks)
    sweeps.first([one.ablation for one in steps], "removing")
    sweeps.first(list(wanted.pruning.values()), "pruning")
    bisect_heads_at(sweeps, wanted.prefixes, settings.max_loss, masks, "heads@")
    costs = _explanation_costs(model, settings, sweeps)
    others = {*wanted.layers.values(), *wanted.heads.values(), *wanted.pruning.values()}
    points = [one for one in dict.fromkeys(wanted.prefixes.values()) if one not in others]
    sweeps.further(
        costs.get(1, 0.0) * budget.correction,
        "more windows",
        lambda: decided_points(sweeps, points, settings.max_loss, masks),
    )
    headline = headline_of(
        model,
        suite,
        ranking,
        wanted,
        sweeps.result(),
        masks,
        lambda ablation: sweeps.everywhere(ablation, "headline"),
        options.seed,
    )
    result = sweeps.result()
    steps = [one for one in steps if one.ablation in sweeps.measured]
    fitting = [windows for windows, cost in costs.items() if cost * budget.correction <= budget.left]
    missing = _not_measured(wanted, sweeps, few, len(suite))
    if settings.explain and not fitting:
        missing.append(("explanation", NOT_MEASURED))
    return Measurements(
        ranking,
        scores,
        wanted,
        _baseline(model.name, suite, result),
        result,
        diffuse if diffuse in sweeps.measured else None,
        headline,
        (steps, result),
        missing,
        max(fitting, default=0),
    )


def _scores_within(
    model: Forecaster, settings: StudySettings, sweeps: BudgetedSweeps, progress: Progress
) -> tuple[StudyScores, int]:
    """Scores on as many windows as a tenth of the budget allows, and that number for each configuration."""
    budget, options = sweeps.budget, settings.options.replace(progress=progress)
    per_round = sweeps.pass_seconds(sweeps.done[0].suite)
    for few in (8, 4, 2, 1):
        expected = SCORING_PASSES * per_round * few / PER_ROUND * budget.correction
        if expected <= min(0.1 * budget.seconds, budget.left):
            return measure_scores(model, settings.suite, options, few), few
    return measure_scores(model, settings.suite, options, 0), 0


def _explanation_costs(
    model: Forecaster, settings: StudySettings, sweeps: BudgetedSweeps
) -> dict[int, float]:
    """Windows of each configuration -> expected seconds of the explanation, before any correction."""
    if not settings.explain or sweeps.rates is None:
        return {}
    sets = len(EXPLAINED_SHARES) * (2 + EXPLAINED_DRAWS)
    return {
        windows: sum(
            explanation_seconds(
                model,
                sweeps.rates,
                settings.suite,
                windows,
                sets=sets,
                trajectories=chaos(),
                contention=sweeps.budget.contention,
            ).values()
        )
        for windows in range(1, EXPLAINED_WINDOWS + 1)
    }


def _not_measured(wanted: StudyPlan, sweeps: BudgetedSweeps, few: int, windows: int) -> list[tuple[str, str]]:
    """(experiment, what is missing of it) of a study within a budget."""
    found = []
    tables = {
        "layers": wanted.layers.values(),
        "heads": wanted.heads.values(),
        "pruned models": wanted.pruning.values(),
    }
    for name, table in tables.items():
        missing = [one for one in table if one not in sweeps.measured]
        if missing:
            found.append((name, f"{len(missing)} of {len(table)} ablations {NOT_MEASURED}"))
    known = sum(one in sweeps.measured for one in wanted.prefixes.values())
    if known < len(wanted.prefixes):
        text = f"{known} of {len(wanted.prefixes)} points of the curves measured, by bisection"
        found.append(("heads@", f"{text}; the others {NOT_MEASURED}"))
    if partial := sweeps.result().partial:
        text = f"{len(partial)} points of the curves decided on fewer windows than the others"
        found.append(("heads@ windows", f"{text}; the other windows {NOT_MEASURED}"))
    if few < 8:
        found.append(("scores", f"on {few} windows of a configuration, not 8; the others {NOT_MEASURED}"))
    used = sum(len(one.suite) for one in sweeps.done)
    if used < windows:
        text = f"{used} of {windows} used, as many of each configuration"
        found.append(("windows", f"{text}; the others {NOT_MEASURED}"))
    return found


def _baseline(name: str, suite: Suite, result: SweepResult) -> Table:
    """The table of `tsprune.evaluate`, from the unablated forecasts of a sweep."""
    results, clean = [], result.scores[CLEAN]
    for c in suite.configurations:
        rows, scores = result.rows.get(c.name), clean.get(c.name)
        if rows is None or scores is None:
            results.append(ModelStatistics(np.zeros(0, np.int64), None, []))
        else:
            results.append(ModelStatistics(rows, scores.statistics, [], result.seconds[c.name]))
    return evaluation_table(name, suite, results, [0.0] * len(results))
