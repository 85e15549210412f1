"""One checkpoint's part of a study, from its forecasts to tables and claims.

1. Scores of heads and MLPs on a few calibration windows (`rankings`), which say what to ablate.
2. Baseline scores relative to Seasonal Naive, and one sweep over every ablation that the tables need
   (`experiments.plan`).
3. Tables: layers, heads with their stable rank, pruning strategies, heads@Xpp; every change with its
   interval, all of them from the same bootstrap draws (`effects.Effects`).
4. A second, short sweep for the headline claim, whose MLPs are chosen by what the first one found
   on the calibration series.
5. Attention, residual stream and traits of forecasts, on a part of the windows (`explanation`).
6. The paper's claims: confirmed, refuted or undecided (`claims`).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tsprune.data.suite import Suite
from tsprune.evaluation import evaluate, geometric_mean_ratios
from tsprune.explain.examples import example
from tsprune.hooks.ablation import Ablation
from tsprune.models.checkpoints import checkpoint_sha256
from tsprune.models.forecaster import Forecaster, SamplingForecaster
from tsprune.progress import any_stage
from tsprune.pruning.heads_at import heads_at_frame
from tsprune.scores import rank
from tsprune.studies.claims import PRUNED_PERCENT, Findings, MLPMedian, model_claims
from tsprune.studies.experiments import Plan, plan
from tsprune.studies.findings import ends_found, headline_found, mlp_median, pruned_found, require_all
from tsprune.studies.rankings import Rankings, agreement, measured, svd_correlation
from tsprune.studies.settings import Progress, Settings, Stage
from tsprune.studies.study_effects import Effects, ratio_interval
from tsprune.studies.study_explanation import explained
from tsprune.studies.study_result import Claim, Example, ModelStudy
from tsprune.studies.study_tables import (
    comparisons_table,
    heads_table,
    layers_table,
    mlps_table,
    pruning_table,
    rank_correlation,
    with_intervals,
)
from tsprune.sweeps.engine import run
from tsprune.sweeps.store import Store
from tsprune.sweeps.sweep_result import CLEAN, SweepResult

EXAMPLES = 3


@dataclasses.dataclass(frozen=True)
class Studied:
    """One model's part of a study.

    mlps : what the claim about all models is made from; none if the model has no MLP
    """

    study: ModelStudy
    claims: Sequence[Claim]
    mlps: Sequence[MLPMedian]
    skipped: Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class _Swept:
    """What was measured on one model: all that the tables are made from.

    diffuse : the middle layers' heads of highest stable rank; None if there are too few
    """

    ranking: pd.DataFrame
    rankings: Rankings
    wanted: Plan
    baseline: pd.DataFrame
    result: SweepResult
    diffuse: Ablation | None


def study_model(
    model: Forecaster, settings: Settings, store: Store | None, progress: Progress | None
) -> Studied:
    """Studies one model; raises TspruneError for an ablation that fails."""
    started = time.monotonic()

    def report(stage: Stage, done: int = 0, total: int = 0) -> None:
        if progress is not None:
            progress(model.name, stage, done, total)

    report("scoring")
    swept = _swept(model, settings, store, lambda done, total: report("ablating", done, total))
    effects = Effects(swept.result, settings.suite, swept.wanted.ablations(), seed=settings.seed)
    tables = _tables(swept, effects, settings)
    headline = headline_found(model, settings, store, swept.ranking, swept.wanted, swept.result)
    if settings.explain:
        report("explaining")
    explanation, unexplained = (
        explained(model, settings.suite, settings.seed) if settings.explain else (None, [])
    )
    findings = Findings(
        headline=headline,
        ends=ends_found(effects, swept.wanted, tables["layers"]),
        pruned=pruned_found(effects, swept.wanted),
        mechanism=pd.DataFrame() if explanation is None else explanation.mechanism,
    )
    ratios = geometric_mean_ratios(swept.baseline)
    one = ModelStudy(
        name=model.name,
        family=model.family,
        architecture=model.anatomy.architecture,
        parameters=model.parameter_count,
        sha256=checkpoint_sha256(model.name),
        baseline=swept.baseline,
        mase_ratio=ratios["MASE"],
        crps_ratio=ratios["CRPS"],
        **tables,
        examples=_examples(swept.result, settings.suite, swept.diffuse, model.context_length),
        seconds=time.monotonic() - started,
        samples=model.samples if isinstance(model, SamplingForecaster) else None,
        mase_interval=ratio_interval(swept.result, settings.suite, "MASE", settings.seed),
        crps_interval=ratio_interval(swept.result, settings.suite, "CRPS", settings.seed),
        score_windows=swept.rankings.windows,
        explanation=explanation,
    )
    left_out = [
        *swept.baseline.attrs["skipped"],
        *swept.result.skipped,
        *swept.rankings.skipped,
        *unexplained,
    ]
    report("done")
    return Studied(
        one,
        tuple(model_claims(one.name, findings, seed=settings.seed)),
        mlp_median(one, effects, swept.wanted),
        list(dict.fromkeys(left_out)),
    )


# --- forecasts -----------------------------------------------------------------------------------


def _swept(
    model: Forecaster, settings: Settings, store: Store | None, on_forecast: Callable[[int, int], None]
) -> _Swept:
    ranking = rank(model)
    rankings = measured(model, settings.suite, batch_size=settings.batch_size, seed=settings.seed)
    wanted = plan(model.anatomy, ranking, settings.seed, rankings.svd(ranking))
    diffuse = _pruned(wanted, "high-to-low", PRUNED_PERCENT)
    baseline = evaluate(model, settings.suite, batch_size=settings.batch_size)
    result = run(
        model,
        settings.suite,
        wanted.ablations(),
        batch_size=settings.batch_size,
        keep=[CLEAN] if diffuse is None else [CLEAN, diffuse],
        progress=any_stage(on_forecast),
        store=store,
        memory=settings.memory,
    )
    require_all(result)
    return _Swept(ranking, rankings, wanted, baseline, result, diffuse)


def _pruned(wanted: Plan, strategy: str, percent: int) -> Ablation | None:
    for key, ablation in wanted.pruning.items():
        if key.strategy == strategy and key.percent == percent:
            return ablation
    return None


# --- tables --------------------------------------------------------------------------------------


def _tables(swept: _Swept, effects: Effects, settings: Settings) -> dict[str, Any]:
    """The tables of `ModelStudy` that follow from the sweep, by name."""
    wanted = swept.wanted
    heads = heads_table(effects, wanted, swept.ranking)
    return {
        "layers": layers_table(effects, wanted),
        "heads": heads,
        "rank_correlation": rank_correlation(heads),
        "pruning": pruning_table(effects, wanted),
        "heads_at": _heads_at(swept, settings),
        "mlps": mlps_table(effects, wanted),
        "comparisons": comparisons_table(effects, wanted),
        "agreement": agreement(swept.rankings, swept.result, wanted, settings.calibration),
        "svd_correlation": svd_correlation(swept.rankings),
    }


def _heads_at(swept: _Swept, settings: Settings) -> pd.DataFrame:
    prefixes = swept.wanted.prefixes
    table = heads_at_frame(
        swept.result,
        prefixes,
        max_loss=settings.percent / 100,
        metric="MASE",
        calibration=settings.calibration,
    )
    return with_intervals(
        table,
        swept.result,
        settings.suite,
        prefixes,
        metric="MASE",
        calibration=settings.calibration,
        seed=settings.seed,
    )


def _examples(
    result: SweepResult, suite: Suite, ablation: Ablation | None, context_length: int
) -> tuple[Example, ...]:
    """The typical window (median Spearman distance) of a few configurations of different frequency."""
    if ablation is None:
        return ()
    chosen = {c.freq: c for c in reversed(suite.configurations) if c.name in result.rows}
    configurations = sorted(chosen.values(), key=lambda c: -c.horizon)[:EXAMPLES]
    found = []
    for configuration in configurations:
        distances = result.scores[ablation][configuration.name].spearman
        place = int(np.argsort(distances, kind="stable")[len(distances) // 2])
        described = (
            f"{len(ablation.components)} heads ({PRUNED_PERCENT} % of the middle layers', "
            "highest stable rank first)"
        )
        found.append(
            example(
                result, configuration, place, ablation, described=described, context_length=context_length
            )
        )
    return tuple(found)
