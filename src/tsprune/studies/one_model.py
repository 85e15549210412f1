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
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from tsprune.data.chaos import chaos
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.evaluation import METRICS, geometric_mean_ratios
from tsprune.evaluation.single_series import unmeasured
from tsprune.explain.examples import example
from tsprune.explain.overview import Explanation, overview
from tsprune.hooks.ablation import Ablation
from tsprune.models.checkpoints import checkpoint_sha256
from tsprune.models.forecaster import Forecaster, SamplingForecaster
from tsprune.progress import DONE, Progress, part_of, silent
from tsprune.pruning.evidence import compare
from tsprune.pruning.heads_at import heads_at_frame
from tsprune.statistics import Estimate
from tsprune.studies import study_tables
from tsprune.studies.claims import MLPMedian, findings_of, model_claims
from tsprune.studies.experiments import PRUNED_PERCENT
from tsprune.studies.measurements import Measurements, measure, measure_within
from tsprune.studies.removals import plan_of, removals_table
from tsprune.studies.score_agreement import (
    agreement_with_effects,
    svd_correlation,
)
from tsprune.studies.study_result import Claim, Example, ModelStudy
from tsprune.studies.study_settings import EXPLAINED_DRAWS, EXPLAINED_SHARES, EXPLAINED_WINDOWS, StudySettings
from tsprune.sweeps.kept_tables import KeptTables
from tsprune.sweeps.store import Store
from tsprune.sweeps.sweep_result import SweepResult

_EXAMPLES = 3


@dataclasses.dataclass(frozen=True)
class Studied:
    """One model's part of a study.

    mlps : for the claim about all models; empty if the model has no MLP
    """

    study: ModelStudy
    claims: Sequence[Claim]
    mlps: Sequence[MLPMedian]
    skipped: Sequence[tuple[str, str]]


def study_model(model: Forecaster, settings: StudySettings, progress: Progress) -> Studied:
    """Studies one model; TspruneError if an ablation fails.

    progress : its stages are "<name of the model>: scoring", those of scores ("activations", "screening"),
        "ablating", "headline", "removing", those of `tsprune.explain.overview`, and "done"
    """
    started = time.monotonic()
    progress = part_of(progress, model.name)
    suite, seed = settings.suite, settings.options.seed
    progress("scoring", 0, 0)
    found = (measure if settings.budget is None else measure_within)(model, settings, progress)
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


def _tables(found: Measurements, effects: study_tables.Effects, settings: StudySettings) -> dict[str, Any]:
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
