"""One checkpoint's part of a study, from its forecasts to tables and claims.

1. Scores of heads and MLPs on a few calibration windows (`score_agreement`), which rank what to ablate.
2. Baseline scores relative to Seasonal Naive, and one sweep over all ablations of the tables
   (`experiments.study_plan`).
3. Tables (`study_tables`): every change with its interval, all from the same bootstrap draws.
4. Two short sweeps of what the first sweep's calibration series choose: the MLPs of the headline claim, and
   the removals that answer whether the model can be pruned (`removals`).
5. `tsprune.explain.overview` on a part of the windows and on chaotic trajectories: attention, the residual
   stream and traits of forecasts.
6. The paper's claims (`claims`).
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from tsprune.data.chaos import chaos
from tsprune.data.split import CALIBRATION_FRACTION
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.evaluation import METRICS, geometric_mean_ratios
from tsprune.evaluation.evaluate import ModelStatistics, evaluation_table
from tsprune.evaluation.single_series import unmeasured
from tsprune.explain.examples import example
from tsprune.explain.explanation_cost import explanation_seconds
from tsprune.explain.overview import Explanation, overview
from tsprune.hooks.ablation import Ablation
from tsprune.models import load
from tsprune.models.checkpoints import checkpoint_sha256
from tsprune.models.forecaster import Forecaster, SamplingForecaster, drawing
from tsprune.progress import DONE, Progress, part_of, silent
from tsprune.pruning.evidence import compare
from tsprune.pruning.heads_at import calibration_masks, heads_at_frame
from tsprune.run_options import RunOptions
from tsprune.schema import Table
from tsprune.scores import rank
from tsprune.statistics import Estimate
from tsprune.studies import study_tables
from tsprune.studies.budget import (
    NOT_MEASURED,
    PER_ROUND,
    Budget,
    BudgetedSweeps,
    bisect_heads_at,
    decided_points,
)
from tsprune.studies.claims import Headline, MLPMedian, findings_of, headline_of, model_claims
from tsprune.studies.experiments import PRUNED_PERCENT, StudyPlan, run_completely, study_plan
from tsprune.studies.removals import Removal, plan_of, removals, removals_table
from tsprune.studies.score_agreement import (
    SCORING_PASSES,
    StudyScores,
    agreement_with_effects,
    measure_scores,
    svd_correlation,
)
from tsprune.studies.study_result import Claim, Example, ModelStudy
from tsprune.sweeps.kept_tables import KeptTables
from tsprune.sweeps.store import Store
from tsprune.sweeps.sweep_result import CLEAN, Masks, SweepResult

# fewer paths than the 20 to 256 of a final score: a study forecasts every window hundreds of times, and its
# comparisons are paired, with the same draws with and without an ablation (`tsprune.models.draws`)
STUDY_SAMPLES = 8
# for models that decode a path value by value; odd, so that the median is a path's value
STUDY_STEPWISE_SAMPLES = 3
# of the explanation: windows of each configuration, shares of the heads that are ablated, random draws
EXPLAINED_WINDOWS, EXPLAINED_SHARES, EXPLAINED_DRAWS = 4, (0.1, 0.3, 0.5), 3
_EXAMPLES = 3


@dataclasses.dataclass(frozen=True)
class StudySettings:
    """Everything that all models of a study have in common; arguments as in `tsprune.study`."""

    suite: Suite
    max_loss: float = 0.01
    samples: int | None = None
    explain: bool = True
    device: str | None = None
    dtype: str | None = None
    options: RunOptions = dataclasses.field(default_factory=RunOptions)
    budget: float | None = None  # seconds for one model

    @functools.cached_property
    def calibration(self) -> Masks:
        """The windows that heads, MLPs and scores are chosen on."""
        return calibration_masks(self.suite, fraction=CALIBRATION_FRACTION, seed=self.options.seed)

    def loaded(self, name: str, dtype: str | None = None) -> Forecaster:
        """A model by name, as the study studies it, or in another precision."""
        return self.with_paths(load(name, device=self.device, dtype=dtype or self.dtype))

    def with_paths(self, model: Forecaster) -> Forecaster:
        """`model`, set to draw the paths of the study if it samples."""
        usual, stepwise = STUDY_SAMPLES, STUDY_STEPWISE_SAMPLES
        return drawing(model, self.samples, usual=usual, of_tokens=stepwise)


@dataclasses.dataclass(frozen=True)
class Studied:
    """One model's part of a study.

    mlps : for the claim about all models; empty if the model has no MLP
    """

    study: ModelStudy
    claims: Sequence[Claim]
    mlps: Sequence[MLPMedian]
    skipped: Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class _Measured:
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


def study_model(model: Forecaster, settings: StudySettings, progress: Progress) -> Studied:
    """Studies one model; TspruneError if an ablation fails.

    progress : its stages are "<name of the model>: scoring", those of scores ("activations", "screening"),
        "ablating", "headline", "removing", those of `tsprune.explain.overview`, and "done"
    """
    started = time.monotonic()
    progress = part_of(progress, model.name)
    suite, seed = settings.suite, settings.options.seed
    progress("scoring", 0, 0)
    found = (_measured if settings.budget is None else _measured_within)(model, settings, progress)
    wanted, result = found.wanted, found.result
    progress("intervals", 0, 0)
    effects = study_tables.Effects(result, suite, wanted.ablations(), seed=seed)
    tables = _tables(found, effects, settings)
    headline = found.headline
    explanation: Explanation | None = None
    unexplained: list[tuple[str, str]] = []
    if settings.explain and found.explained_windows:
        explanation, unexplained = explained(
            model, suite, seed, progress, settings.options.store, found.explained_windows
        )
    mechanism = pd.DataFrame() if explanation is None else explanation.mechanism
    findings = findings_of(effects, wanted, tables["layers"], headline, mechanism)
    ratios = geometric_mean_ratios(found.baseline)
    removed = removals_table(model, *found.removed, suite, settings.calibration, seed)
    study = ModelStudy(
        name=model.name,
        family=model.family,
        architecture=model.anatomy.architecture,
        parameters=model.parameter_count,
        sha256=checkpoint_sha256(model.name),
        baseline=found.baseline.frame,
        mase_ratio=ratios["MASE"],
        crps_ratio=ratios["CRPS"],
        **tables,
        examples=_examples(result, suite, found.diffuse, model.context_length),
        seconds=time.monotonic() - started,
        samples=model.samples if isinstance(model, SamplingForecaster) else None,
        mase_interval=study_tables.ratio_interval(result, suite, "MASE", seed),
        crps_interval=study_tables.ratio_interval(result, suite, "CRPS", seed),
        score_windows=found.scores.windows,
        explanation=explanation,
        dtype=str(model.dtype).removeprefix("torch."),
        precision=_against_float32(model, settings),
        notes=unmeasured(model, suite),
        removals=removed,
        plan=plan_of(model, removed),
    )
    mlps = list(wanted.mlps.values())
    medians = [MLPMedian(study.name, study.architecture, effects.of(mlps, "MASE").median())] if mlps else []
    skipped = [*found.baseline.skipped, *result.skipped, *found.scores.skipped, *unexplained]
    skipped += [(f"{model.name}: {what}", text) for what, text in found.missing]
    progress(DONE, 1, 1)
    claims = tuple(model_claims(study.name, findings, seed=seed))
    return Studied(study, claims, medians, list(dict.fromkeys(skipped)))


def _against_float32(model: Forecaster, settings: StudySettings) -> dict[str, Estimate]:
    """Metric -> relative change by the model's precision; empty in float32, and of a model in memory."""
    if model.dtype == torch.float32:
        return {}
    try:
        plain = settings.loaded(model.name, "float32")
    except TspruneError:
        return {}
    options = settings.options

    def compared() -> dict[str, pd.DataFrame]:
        found = compare(plain, model, settings.suite, batch_size=options.batch_size, seed=options.seed)
        return {"change": pd.DataFrame([dataclasses.asdict(found.change[metric]) for metric in METRICS])}

    rows = KeptTables(options.store, model, options).get("precision", compared, settings.suite)["change"]
    return {metric: Estimate(**row) for metric, row in zip(METRICS, rows.to_dict("records"), strict=True)}


def _measured(model: Forecaster, settings: StudySettings, progress: Progress) -> _Measured:
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

    def measure(ablation: Ablation) -> SweepResult:
        return run_completely(model, suite, [ablation], options, progress=progress, stage="headline")

    headline = headline_of(model, suite, ranking, wanted, result, settings.calibration, measure, options.seed)
    steps = removals(model, wanted.singles, result, settings.calibration)
    ablations = [one.ablation for one in steps]
    second = result
    if steps:
        second = run_completely(model, suite, ablations, options, progress=progress, stage="removing")
    baseline = _baseline(model.name, suite, result)
    return _Measured(ranking, scores, wanted, baseline, result, diffuse, headline, (steps, second))


def _measured_within(model: Forecaster, settings: StudySettings, progress: Progress) -> _Measured:
    """`_measured` within the budget: what is more important first, on as many windows as fit."""
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
    return _Measured(
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


def _tables(found: _Measured, effects: study_tables.Effects, settings: StudySettings) -> dict[str, Any]:
    """The tables of `ModelStudy` that follow from the sweep, by name."""
    wanted, result, masks = found.wanted, found.result, settings.calibration
    heads = study_tables.heads_table(effects, wanted, found.ranking)
    prefixes = wanted.prefixes
    at = heads_at_frame(result, prefixes, max_loss=settings.max_loss, metric="MASE", calibration=masks)
    seed = settings.options.seed
    return {
        "layers": study_tables.layers_table(effects, wanted),
        "heads": heads,
        "rank_correlation": study_tables.rank_correlation(heads),
        "pruning": study_tables.pruning_table(effects, wanted),
        "heads_at": study_tables.with_intervals(
            at, result, settings.suite, prefixes, metric="MASE", calibration=masks, seed=seed
        ),
        "mlps": study_tables.mlps_table(effects, wanted),
        "comparisons": study_tables.comparisons_table(effects, wanted),
        "agreement": agreement_with_effects(found.scores, result, wanted, masks),
        "svd_correlation": svd_correlation(found.scores),
    }


def _examples(
    result: SweepResult, suite: Suite, ablation: Ablation | None, context_length: int
) -> tuple[Example, ...]:
    """The typical window (median Spearman distance) of a few configurations of different frequency."""
    if ablation is None:
        return ()
    by_frequency = {c.freq: c for c in reversed(suite.configurations) if c.name in result.rows}
    chosen = sorted(by_frequency.values(), key=lambda c: -c.horizon)[:_EXAMPLES]
    count = len(ablation.components)
    described = f"{count} heads ({PRUNED_PERCENT} % of the middle layers', highest stable rank first)"
    found = []
    for c in chosen:
        distances = result.scores[ablation][c.name].spearman
        place = int(np.argsort(distances, kind="stable")[len(distances) // 2])
        found.append(example(result, c, place, ablation, described=described, context_length=context_length))
    return tuple(found)


def explained(
    model: Forecaster,
    suite: Suite,
    seed: int,
    progress: Progress = silent,
    store: Store | None = None,
    per_configuration: int = EXPLAINED_WINDOWS,
) -> tuple[Explanation | None, list[tuple[str, str]]]:
    """The explanation (None if there is none), and (part, reason) of its missing parts.

    The sweep has scores of every head over all windows, but parroting and seasonality need the forecasts
    themselves: these are made for an evenly spread part of the windows.
    """
    try:
        found = overview(
            model,
            suite,
            per_configuration=per_configuration,
            shares=EXPLAINED_SHARES,
            draws=EXPLAINED_DRAWS,
            trajectories=chaos(),
            seed=seed,
            store=store,
            progress=progress,
        )
    except TspruneError as error:
        return None, [(f"{model.name}: explanation", str(error))]
    return found, [(f"{model.name}: {part}", reason) for part, reason in found.skipped]
