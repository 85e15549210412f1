"""`study`: the main job, from checkpoints to tables.

For each checkpoint:
1. Baseline scores relative to Seasonal Naive.
2. One sweep over every ablation that the tables need (`experiments.plan`).
3. Tables: layers, heads with their stable rank, pruning strategies, heads@Xpp.
4. A second, short sweep for the headline claim, whose MLPs are chosen by what the first one found
   on the calibration series.
5. The paper's claims, confirmed or refuted.
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
from scipy.stats import spearmanr

from tsprune.ablation import Ablation
from tsprune.anatomy import Component
from tsprune.data.pocket import pocket
from tsprune.data.split import CALIBRATION_FRACTION
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.evaluation import Prepared, evaluate, geometric_mean_ratios, prepare
from tsprune.explain.examples import example
from tsprune.models import load
from tsprune.models.checkpoints import checkpoint_sha256
from tsprune.models.forecaster import Forecaster, SamplingForecaster
from tsprune.pruning.heads_at import calibration_masks, heads_at_frame
from tsprune.pruning.strategies import middle_heads, remove_ranked
from tsprune.scores import rank
from tsprune.study.claims import HEADLINE_SHARE, PRUNED_PERCENT, Headline, mlp_claim, model_claims
from tsprune.study.experiments import LayerUnit, Plan, PrunedHeads, plan
from tsprune.study.explanation import explained
from tsprune.study.manifest import manifest
from tsprune.study.mechanism import Mechanism, measure
from tsprune.study.result import Claim, Example, ModelStudy, Study
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
    skipped: dict[tuple[str, str], None] = {}
    with Store(store) if isinstance(store, str | Path) else nullcontext(store) as opened:
        settings = _Settings(percent, seed, batch_size, masks, opened, explain)
        for entry in models:
            model = load(entry, samples=samples) if isinstance(entry, str) else entry
            one, found, left_out = _study_model(model, suite, prepared, settings, progress)
            studies.append(one)
            claims += found
            skipped |= dict.fromkeys(left_out)
    claims.append(mlp_claim(studies))
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
    return Study(suite.name, len(suite), percent, tuple(studies), tuple(claims), tuple(skipped), record)


def _study_model(
    model: Forecaster,
    suite: Suite,
    prepared: Sequence[Prepared],
    settings: _Settings,
    progress: Progress | None,
) -> tuple[ModelStudy, list[Claim], list[tuple[str, str]]]:
    started = time.monotonic()

    def report(done: int, total: int) -> None:
        if progress is not None:
            progress(model.name, done, total)

    ranking = rank(model)
    wanted = plan(model.anatomy, ranking, settings.seed)
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
    heads = _heads_table(result, wanted, ranking)
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
        layers=_layers_table(result, wanted),
        heads=heads,
        rank_correlation=rank_correlation(heads),
        pruning=_pruning_table(result, wanted),
        heads_at=heads_at_frame(
            result,
            wanted.prefixes,
            percent=settings.percent,
            metric="MASE",
            calibration=settings.calibration,
        ),
        examples=_examples(result, suite, diffuse, model.context_length),
        seconds=time.monotonic() - started,
        samples=model.samples if isinstance(model, SamplingForecaster) else None,
        explanation=explanation,
    )
    headline = _headline(model, suite, prepared, settings, ranking, wanted, result)
    skipped = list(dict.fromkeys([*baseline.attrs["skipped"], *result.skipped, *unexplained]))
    return one, model_claims(one, headline, mechanism), skipped


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


# --- tables --------------------------------------------------------------------------------------


def _effect(result: SweepResult, ablation: Ablation) -> dict[str, float]:
    change = result.change(ablation)
    return {
        "mase_change": change.mase,
        "crps_change": change.crps,
        "spearman_distance": change.spearman,
    }


def _layers_table(result: SweepResult, wanted: Plan) -> pd.DataFrame:
    def address(key: LayerUnit) -> str:
        suffix = {"heads": ".*.head.*", "mlp": ".mlp", "both": ""}[key.unit]
        return f"{key.stack}.{key.layer}{suffix}"

    return pd.DataFrame(
        {
            "stack": key.stack,
            "layer": key.layer,
            "unit": key.unit,
            "address": address(key),
            **_effect(result, ablation),
        }
        for key, ablation in wanted.layers.items()
    )


def _heads_table(result: SweepResult, wanted: Plan, ranking: pd.DataFrame) -> pd.DataFrame:
    effects = pd.DataFrame(
        {"address": head.address, **_effect(result, ablation)} for head, ablation in wanted.heads.items()
    )
    return ranking.drop(columns=["score", "rank"]).merge(effects, on="address", validate="one_to_one")


def _pruning_table(result: SweepResult, wanted: Plan) -> pd.DataFrame:
    def row(key: PrunedHeads, ablation: Ablation) -> dict[str, object]:
        return {
            "percent": key.percent,
            "strategy": key.strategy,
            "seed": key.seed,
            "heads_removed": len(ablation.components),
            "heads_total": key.total,
            **_effect(result, ablation),
        }

    columns = ["percent", "strategy", "seed", "heads_removed", "heads_total"]
    columns += ["mase_change", "crps_change", "spearman_distance"]
    return pd.DataFrame([row(*item) for item in wanted.pruning.items()], columns=columns)


def rank_correlation(heads: pd.DataFrame) -> pd.DataFrame:
    """Spearman correlation of both stable ranks with the ablation effect, per attention kind.

    heads : the table of `ModelStudy.heads`; columns of the result as in `ModelStudy`
    """
    rows = []
    for (stack, attention), group in heads.groupby(["stack", "attention"], sort=False):
        for variant, column in (("paper", "stable_rank"), ("effective", "stable_rank_effective")):
            for metric in ("mase_change", "crps_change"):
                pair = group[[column, metric]].dropna()
                varied = len(pair) > 2 and bool((pair.nunique() > 1).all())
                test = spearmanr(pair[column], pair[metric]) if varied else None
                rows.append(
                    {
                        "stack": stack,
                        "attention": attention,
                        "variant": variant,
                        "metric": metric.removesuffix("_change").upper(),
                        "correlation": float(test.statistic) if test else float("nan"),
                        "p_value": float(test.pvalue) if test else float("nan"),
                        "heads": len(pair),
                    }
                )
    return pd.DataFrame(rows)


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
        return Headline(count, len(ranking), addresses, None)
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
    return Headline(count, len(ranking), addresses, second.change(ablation, report))
