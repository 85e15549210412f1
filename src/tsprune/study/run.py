"""`study`: the main job, from checkpoints to tables.

For each checkpoint:
1. Baseline scores relative to Seasonal Naive.
2. Scores of heads and MLPs on a few calibration windows (`rankings`), then one sweep over every
   ablation that the tables need (`experiments.plan`).
3. Tables: layers, heads with their stable rank, pruning strategies, heads@Xpp; every change with its
   interval, all of them from the same bootstrap draws (`effects.Effects`).
4. A second, short sweep for the headline claim, whose MLPs are chosen by what the first one found
   on the calibration series.
5. The paper's claims: confirmed, refuted or undecided, as their intervals say.
6. Why: attention, residual stream and traits of forecasts, on a part of the windows (`explanation`).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd

from tsprune.ablation import Ablation
from tsprune.anatomy import Component
from tsprune.data.pocket import pocket
from tsprune.data.split import CALIBRATION_FRACTION
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.evaluation import Prepared, evaluate, geometric_mean_ratios, prepare
from tsprune.evaluation.intervals import Change, simultaneous
from tsprune.explain.examples import example
from tsprune.models import load
from tsprune.models.checkpoints import checkpoint_sha256
from tsprune.models.forecaster import Forecaster, SamplingForecaster
from tsprune.pruning.heads_at import calibration_masks, heads_at_frame
from tsprune.pruning.strategies import middle_heads, remove_ranked
from tsprune.scores import rank
from tsprune.study.claims import (
    HEADLINE_SHARE,
    PRUNED_PERCENT,
    Findings,
    Headline,
    MLPMedian,
    Pruned,
    end_layers,
    mlp_claim,
    model_claims,
)
from tsprune.study.effects import METRICS, STATISTICS, Effects, ratio_interval
from tsprune.study.experiments import LayerUnit, Plan, plan
from tsprune.study.explanation import explained
from tsprune.study.manifest import manifest
from tsprune.study.mechanism import Mechanism, measure
from tsprune.study.rankings import agreement, measured, svd_correlation
from tsprune.study.result import Claim, Example, ModelStudy, Study
from tsprune.study.tables import (
    comparisons_table,
    heads_table,
    layers_table,
    mlps_table,
    pruning_table,
    rank_correlation,
    strategies_at,
    with_intervals,
)
from tsprune.sweep.engine import BATCH_SIZE, run
from tsprune.sweep.result import CLEAN, Masks, SweepResult
from tsprune.sweep.store import Store

DEFAULT_MODELS = ("bundled:timesfm", "bundled:chronos-bolt")
# upstream draws 20 to 256 for a final score; a study forecasts every window hundreds of times, and its
# comparisons are paired: the same draws with and without an ablation (`tsprune.models.draws`)
STUDY_SAMPLES = 8
EXAMPLES = 3

# (model, forecasts of a batch done, of all)
Progress = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True)
class _Settings:
    percent: float
    seed: int
    batch_size: int
    calibration: Masks
    store: Store | None
    explain: bool


@dataclasses.dataclass(frozen=True)
class _Studied:
    """One model's part of a study."""

    study: ModelStudy
    claims: Sequence[Claim]
    mlps: Sequence[MLPMedian]  # one, or none if the model has no MLP
    skipped: Sequence[tuple[str, str]]


def study(
    models: Sequence[str | Forecaster] = DEFAULT_MODELS,
    suite: Suite | None = None,
    *,
    percent: float = 1.0,
    seed: int = 0,
    samples: int = STUDY_SAMPLES,
    batch_size: int = BATCH_SIZE,
    explain: bool = True,
    progress: Progress | None = None,
    store: Store | str | Path | None = None,
) -> Study:
    """Runs the study of one or more checkpoints; see `Study` for what comes back.

    models : names as `tsprune.load` takes them, or loaded models
    suite : None takes the embedded pocket suite
    percent : X of heads@Xpp
    seed : of the random strategies, the calibration split and the bootstrap
    samples : paths per window that models given by name draw, if they sample; loaded ones keep theirs
    explain : whether heads and layers are also explained, on a part of the windows (about a minute a model)
    store : a results store, or the path of one: its cells are not computed again, and what is
        computed is kept there batch by batch, so that a study that was stopped goes on

    Raises TspruneError for an unknown model or a suite without windows, and for an ablation that
    fails: the tables need them all.
    """
    suite = pocket() if suite is None else suite
    prepared = [prepare(configuration) for configuration in suite.configurations]
    masks = calibration_masks(suite, fraction=CALIBRATION_FRACTION, seed=seed)
    studies: list[ModelStudy] = []
    claims: list[Claim] = []
    medians: list[MLPMedian] = []
    skipped: dict[tuple[str, str], None] = {}
    with Store(store) if isinstance(store, str | Path) else nullcontext(store) as opened:
        settings = _Settings(percent, seed, batch_size, masks, opened, explain)
        for entry in models:
            model = load(entry, samples=samples) if isinstance(entry, str) else entry
            found = _study_model(model, suite, prepared, settings, progress)
            studies.append(found.study)
            claims += found.claims
            medians += found.mlps
            skipped |= dict.fromkeys(found.skipped)
    claims.append(mlp_claim(medians))
    arguments: dict[str, object] = {
        "models": [one.name for one in studies],
        "percent": percent,
        "seed": seed,
        "batch_size": batch_size,
        "explain": explain,
        "samples": {one.name: one.samples for one in studies if one.samples is not None},
    }
    record = manifest(suite, {one.name: one.sha256 for one in studies}, arguments)
    record["seconds"] = {one.name: round(one.seconds, 1) for one in studies}
    record["statistics"] = STATISTICS
    record["scores"] = {
        one.name: {
            "MASE_ratio": [one.mase_ratio, *one.mase_interval],
            "CRPS_ratio": [one.crps_ratio, *one.crps_interval],
        }
        for one in studies
    }
    return Study(suite.name, len(suite), percent, tuple(studies), tuple(claims), tuple(skipped), record)


def _study_model(
    model: Forecaster,
    suite: Suite,
    prepared: Sequence[Prepared],
    settings: _Settings,
    progress: Progress | None,
) -> _Studied:
    started = time.monotonic()

    def report(done: int, total: int) -> None:
        if progress is not None:
            progress(model.name, done, total)

    ranking = rank(model)
    rankings = measured(model, suite, batch_size=settings.batch_size, seed=settings.seed)
    wanted = plan(model.anatomy, ranking, settings.seed, rankings.svd(ranking))
    sharp = _pruned(wanted, "low-to-high", PRUNED_PERCENT)
    diffuse = _pruned(wanted, "high-to-low", PRUNED_PERCENT)
    keep = [CLEAN, *(ablation for ablation in (sharp, diffuse) if ablation is not None)]
    baseline = evaluate(model, suite, batch_size=settings.batch_size, prepared=prepared)
    result = run(
        model,
        suite,
        wanted.ablations(),
        batch_size=settings.batch_size,
        keep=keep,
        prepared=prepared,
        progress=report,
        store=settings.store,
    )
    _require_all(result)
    ratios = geometric_mean_ratios(baseline)
    effects = Effects(result, suite, wanted.ablations(), seed=settings.seed)
    heads = heads_table(effects, wanted, ranking)
    mechanism: Mechanism | None = None
    if sharp is not None and diffuse is not None:
        mechanism = measure(
            result,
            suite,
            sharp=sharp,
            diffuse=diffuse,
            context_length=model.context_length,
            seed=settings.seed,
        )
    explanation, unexplained = explained(model, suite, settings.seed) if settings.explain else (None, [])
    one = ModelStudy(
        name=model.name,
        family=model.family,
        architecture=model.anatomy.architecture,
        parameters=model.parameter_count,
        sha256=checkpoint_sha256(model.name),
        baseline=baseline,
        mase_ratio=ratios["MASE"],
        crps_ratio=ratios["CRPS"],
        layers=layers_table(effects, wanted),
        heads=heads,
        rank_correlation=rank_correlation(heads, settings.seed),
        pruning=pruning_table(effects, wanted),
        heads_at=_heads_at(result, suite, wanted, settings),
        examples=_examples(result, suite, diffuse, model.context_length),
        seconds=time.monotonic() - started,
        samples=model.samples if isinstance(model, SamplingForecaster) else None,
        mase_interval=ratio_interval(result, prepared, "MASE", settings.seed),
        crps_interval=ratio_interval(result, prepared, "CRPS", settings.seed),
        mlps=mlps_table(effects, wanted),
        comparisons=comparisons_table(effects, wanted, settings.seed),
        agreement=agreement(rankings, result, wanted, settings.calibration, settings.seed),
        svd_correlation=svd_correlation(rankings, settings.seed),
        score_windows=rankings.windows,
        explanation=explanation,
    )
    found = Findings(
        headline=_headline(model, suite, prepared, settings, ranking, wanted, result),
        ends=_ends(effects, wanted, one.layers),
        pruned=_pruned_findings(effects, wanted, settings.seed),
        mechanism=mechanism,
    )
    left_out = [*baseline.attrs["skipped"], *result.skipped, *rankings.skipped, *unexplained]
    skipped = list(dict.fromkeys(left_out))
    return _Studied(one, tuple(model_claims(one.name, found)), _mlp_median(one, effects, wanted), skipped)


def _require_all(result: SweepResult) -> None:
    for (ablation, configuration), error in result.failed.items():
        what = " ".join(component.address for component in ablation.components) or "no ablation"
        raise TspruneError(
            f"{len(result.failed)} cells of the study failed, the first on {configuration} ({what}): "
            f"{error}; what is finished stays in the store"
        )


def _pruned(wanted: Plan, strategy: str, percent: int) -> Ablation | None:
    for key, ablation in wanted.pruning.items():
        if key.strategy == strategy and key.percent == percent:
            return ablation
    return None


# --- examples and the headline -------------------------------------------------------------------


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


def _heads_at(result: SweepResult, suite: Suite, wanted: Plan, settings: _Settings) -> pd.DataFrame:
    table = heads_at_frame(
        result,
        wanted.prefixes,
        percent=settings.percent,
        metric="MASE",
        calibration=settings.calibration,
    )
    return with_intervals(
        table,
        result,
        suite,
        wanted.prefixes,
        metric="MASE",
        calibration=settings.calibration,
        seed=settings.seed,
    )


def _ends(effects: Effects, wanted: Plan, layers: pd.DataFrame) -> dict[str, Change]:
    """First and last layers, with intervals that hold together."""
    ends = end_layers(layers)
    ablations = [wanted.layers[LayerUnit(row.stack, row.layer, "both")] for row in ends.itertuples()]
    changes = effects.of(ablations, "MASE")
    level = simultaneous(len(ablations))
    return {address: changes.change(column, level=level) for column, address in enumerate(ends["address"])}


def _pruned_findings(effects: Effects, wanted: Plan, seed: int) -> Pruned | None:
    found = strategies_at(effects, wanted, PRUNED_PERCENT, "MASE")
    if not found:
        return None
    high, low, random = found["high-to-low"], found["low-to-high"], found["random"]
    mean = random.mean_of_drawn(seed)
    level = simultaneous(2)
    return Pruned(
        high=high.change(level=level),
        random=mean.change(level=level),
        above_random=high.minus(mean).change(),
        above_low=high.minus(low).change(),
        low=float(low.values[0]),
        drawn=random.values.tolist(),
    )


def _mlp_median(one: ModelStudy, effects: Effects, wanted: Plan) -> list[MLPMedian]:
    ablations = [ablation for key, ablation in wanted.layers.items() if key.unit == "mlp"]
    if not ablations:
        return []
    return [MLPMedian(one.name, one.architecture, effects.of(ablations, "MASE").median())]


def _headline(
    model: Forecaster,
    suite: Suite,
    prepared: Sequence[Prepared],
    settings: _Settings,
    ranking: pd.DataFrame,
    wanted: Plan,
    result: SweepResult,
) -> Headline:
    """28 % of all heads and the two middle MLPs that cost least on the calibration series."""
    pool = middle_heads(model.anatomy, ranking)
    count = round(HEADLINE_SHARE * len(ranking))
    costs = {
        Component(key.stack, key.layer, mlp=True): result.change(ablation, settings.calibration).mase
        for key, ablation in wanted.layers.items()
        if key.unit == "mlp" and key.layer in model.anatomy.middle_layers(key.stack)
    }
    mlps = tuple(sorted(costs, key=lambda component: costs[component])[:2])
    addresses = [mlp.address for mlp in mlps]
    if len(pool) < count or len(mlps) < 2:
        return Headline(count, len(ranking), addresses, None, None)
    ablation = Ablation((*remove_ranked(pool, count, "high-to-low"), *mlps))
    second = run(
        model,
        suite,
        [ablation],
        batch_size=settings.batch_size,
        prepared=prepared,
        store=settings.store,
    )
    _require_all(second)
    report = {name: ~mask for name, mask in settings.calibration.items()}
    effects = Effects(second, suite, [ablation], masks=report, seed=settings.seed)
    mase, crps = (effects.of([ablation], metric).change() for metric in METRICS)
    return Headline(count, len(ranking), addresses, mase, crps)
