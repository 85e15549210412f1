"""The result of a study: tables, whose schemas are here, claims, and the files that store them."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import pandas as pd

from tsprune.anatomy import Architecture
from tsprune.atomic import write_whole
from tsprune.evaluation.evaluate import EVALUATION
from tsprune.evaluation.metrics import METRICS, per_metric
from tsprune.explain.examples import Example as Example
from tsprune.explain.overview import Explanation
from tsprune.pruning.heads_at import HEADS_AT
from tsprune.pruning.plan import Plan
from tsprune.schema import Column, Schema
from tsprune.statistics import Estimate, Verdict

ClaimVerdict = Verdict | Literal["not applicable"]

_STACK = Column("stack", "name of the stack", dtype="text")
_LAYER = Column("layer", "number in the original model", dtype="count")
_ATTENTION = Column("attention", "role of the attention sublayer", dtype="text")
_HEAD = Column("head", "number in the original model", dtype="count")
_ADDRESS = Column("address", "of the component", dtype="text")
_PERCENT = Column("percent", "share of the middle layers' heads that is removed", "%", dtype="count")
_METRIC = Column("metric", "name of the metric", dtype="text")
_LOW, _HIGH = Column("low", "of the 95 % interval"), Column("high", "of the 95 % interval")
_P = Column("p_value", "of no relation")
_P_HOLM = Column("p_holm", "p-value corrected over its family (Holm)")


def _changes() -> Iterator[Column]:
    """Relative change of each metric's geometric mean over configurations; NaN where data are too few."""
    for metric in METRICS.values():
        yield Column(f"{metric.key}_change", f"of {metric.name} by the ablation", "relative change")
        yield Column(f"{metric.key}_low", "of the 95 % interval", "relative change")
        yield Column(f"{metric.key}_high", "of the 95 % interval", "relative change")


_DISTANCE = Column("spearman_distance", "of the median forecast, mean over windows")
_TESTED = per_metric("{key}_p_holm", "of no change of {name}, corrected over the family (Holm)")

LAYERS = Schema(
    "layers",  # family of tests: one unit's layers
    _STACK,
    _LAYER,
    Column("unit", "ablated part of the layer: heads, mlp or both", dtype="text"),
    _ADDRESS,
    _changes,
    _DISTANCE,
    _TESTED,
)
HEADS = Schema(
    "heads",  # family of tests: all heads of the model
    _ADDRESS,
    _STACK,
    _LAYER,
    _ATTENTION,
    _HEAD,
    Column("stable_rank", "of W_Q W_K^T"),
    Column("stable_rank_effective", "the same with q/k norm weights and scales"),
    _changes,
    _DISTANCE,
    _TESTED,
)
RANK_CORRELATION = Schema(
    "rank_correlation",  # family of tests: the table
    _STACK,
    _ATTENTION,
    Column("variant", "paper or effective stable rank", dtype="text"),
    _METRIC,
    Column("correlation", "Spearman's rho of stable rank with the change of the metric, over heads"),
    _LOW,
    _HIGH,
    _P,
    _P_HOLM,
    Column("heads", "number of heads", dtype="count"),
)
PRUNING = Schema(
    "pruning",
    _PERCENT,
    Column("strategy", "high-to-low, low-to-high (svd-: by rank of attention maps) or random", dtype="text"),
    Column("seed", "number of the random draw", dtype="any"),
    Column("heads_removed", "number of heads", dtype="count"),
    Column("heads_total", "heads of the middle layers", dtype="count"),
    _changes,
    _DISTANCE,
)
HEADS_AT_INTERVALS = Schema(
    "heads_at",
    *HEADS_AT,
    Column("score_low", "of the 95 % interval", "relative change"),
    Column("score_high", "of the 95 % interval", "relative change"),
)
MLPS = Schema(
    "mlps",
    Column("stack", "name of the stack; all: of all stacks", dtype="text"),
    Column("count", "of MLPs, each ablated alone; changes are medians over them", dtype="count"),
    _changes,
)
COMPARISONS = Schema(
    "comparisons",  # family of tests: one metric's rows, without those that a claim tests
    _PERCENT,
    _METRIC,
    Column("strategy", "of `pruning`", dtype="text"),
    Column("versus", "random (geometric mean over draws), another strategy, or unpruned", dtype="text"),
    Column("difference", "(1 + a) / (1 + b) - 1 of the two changes", "relative change"),
    _LOW,
    _HIGH,
    _P_HOLM,
    Column("draws", "number of random draws", dtype="any"),
    Column("beaten", "random draws with a larger loss than the strategy", dtype="any"),
)
SVD_CORRELATION = Schema(
    "svd_correlation",
    _STACK,
    _ATTENTION,
    Column("rho", "Spearman's, of the stable ranks of weights and of attention maps, over heads"),
    _LOW,
    _HIGH,
    _P,
    Column("count", "of heads", dtype="any"),
)
AGREEMENT = Schema(
    "agreement",  # family of tests: the scores of one kind, group and metric
    Column("kind", "of the components: head or mlp", dtype="text"),
    Column("group", "all, or the components of one stack or kind of sublayer", dtype="text"),
    Column("score", "name of the score", dtype="text"),
    _METRIC,
    Column("rho", "Spearman's, of the score with the change of the metric, over components"),
    _LOW,
    _HIGH,
    _P,
    _P_HOLM,
    Column("count", "of components", dtype="count"),
    Column("expected", "sign of rho if the score identifies redundant components", dtype="count"),
)

REMOVALS = Schema(
    "removals",  # sets that grow; the changes are those of the report series
    Column("saving", "share of the estimated time of a forecast that is saved"),
    Column("heads", "heads removed", dtype="count"),
    Column("heads_total", "heads of the model", dtype="count"),
    Column("mlps", "MLPs removed", dtype="count"),
    Column("mlps_total", "MLPs of the model", dtype="count"),
    Column("calibration_loss", "change of MASE on the series that choose", "relative change"),
    Column("calibration_limit", "upper limit of calibration_loss, as of tsprune.plan", "relative change"),
    Column("components", "addresses, separated by spaces", dtype="text"),
    _changes,
    _DISTANCE,
    Column("chosen", "whether the plan of the study removes this set", dtype="flag"),
)


@dataclasses.dataclass(frozen=True)
class Claim:
    """A headline claim of the paper, tested on one model (or on all: model is "all").

    statement : the claim in one sentence
    evidence : the numbers measured here, in one sentence
    value, low, high : the change or difference that the claim is about, with its 95 % interval (the first
        of several; `evidence` has all); NaN if the claim does not apply
    p_holm : p-value of the claim, corrected over its family (the claims about one model)
    agreement : share of bootstrap seeds with this verdict; below 1 the verdict is undecided
    """

    model: str
    statement: str
    verdict: ClaimVerdict
    evidence: str
    value: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    p_holm: float = float("nan")
    agreement: float = float("nan")


@dataclasses.dataclass(frozen=True)
class ModelStudy:
    """Everything measured on one checkpoint; the tables have the schemas of this module.

    baseline : `tsprune.evaluate` of the model, one row per configuration
    mase_ratio, crps_ratio : geometric means over configurations relative to Seasonal Naive
    mase_interval, crps_interval : (low, high) of those means
    heads_at : two rows per attention sublayer, one per selection
    agreement : rank correlation of every score with the exact effect of ablating single components, on other
        series; columns as in `tsprune.scores.agreement_table`, and p_holm (family: the scores of one kind,
        group and metric)
    score_windows : windows that scores of data were computed on
    samples : paths drawn per window; None if the model does not sample
    explanation : `tsprune.explain.overview` on a part of the windows; None without `explain`
    dtype : precision of the weights
    precision : metric -> its relative change against the model in float32; empty in float32
    notes : cautions about what the suite can show of this model
    plan : the removal that the study chose; None if none is within its losses
    """

    name: str
    family: str
    architecture: Architecture
    parameters: int
    sha256: str
    baseline: pd.DataFrame
    mase_ratio: float
    crps_ratio: float
    layers: pd.DataFrame
    heads: pd.DataFrame
    rank_correlation: pd.DataFrame
    pruning: pd.DataFrame
    heads_at: pd.DataFrame
    examples: tuple[Example, ...]
    seconds: float
    samples: int | None = None
    mase_interval: tuple[float, float] = (float("nan"), float("nan"))
    crps_interval: tuple[float, float] = (float("nan"), float("nan"))
    mlps: pd.DataFrame = dataclasses.field(default_factory=pd.DataFrame)
    comparisons: pd.DataFrame = dataclasses.field(default_factory=pd.DataFrame)
    agreement: pd.DataFrame = dataclasses.field(default_factory=pd.DataFrame)
    svd_correlation: pd.DataFrame = dataclasses.field(default_factory=pd.DataFrame)
    score_windows: int = 0
    explanation: Explanation | None = None
    dtype: str = "float32"
    precision: Mapping[str, Estimate] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    removals: pd.DataFrame = dataclasses.field(default_factory=pd.DataFrame)
    plan: Plan | None = None


@dataclasses.dataclass(frozen=True)
class Study:
    """A study of one or more checkpoints on one suite.

    max_loss : of heads@Xpp
    skipped : (item, reason) of everything that could not be evaluated
    manifest : versions, checkpoint SHA-256, data fingerprint, seeds, arguments (JSON-able)
    """

    suite: str
    windows: int
    max_loss: float
    models: tuple[ModelStudy, ...]
    claims: tuple[Claim, ...]
    skipped: tuple[tuple[str, str], ...]
    manifest: dict[str, object]

    @property
    def percent(self) -> float:
        """X of heads@Xpp."""
        return round(100 * self.max_loss, 10)


TABLES: Mapping[str, Schema] = {
    "baseline": EVALUATION,
    "layers": LAYERS,
    "heads": HEADS,
    "rank_correlation": RANK_CORRELATION,
    "pruning": PRUNING,
    "heads_at": HEADS_AT_INTERVALS,
    "mlps": MLPS,
    "comparisons": COMPARISONS,
    "agreement": AGREEMENT,
    "svd_correlation": SVD_CORRELATION,
    "removals": REMOVALS,
}
# of the explanation; its other tables repeat these, or have a row for every lag of every head
_KEPT = ["heads", "residual", "cka", "lens", "attribution", "effects", "mechanism", "correlations", "kernel"]


def results_table(study: Study) -> pd.DataFrame:
    """All tables of all models, one below the other; columns `model` and `experiment` tell them apart.

    Tables of the explanation are called `explain_heads` and so on.
    """
    parts = [_labelled(one.name, name, getattr(one, name)) for one in study.models for name in TABLES]
    parts += [
        _labelled(one.name, f"explain_{name}", getattr(one.explanation, name))
        for one in study.models
        if one.explanation is not None
        for name in _KEPT
    ]
    claims = pd.DataFrame([dataclasses.asdict(claim) for claim in study.claims])
    if len(claims):
        claims.insert(1, "experiment", "claims")
    return pd.concat([part for part in (*parts, claims) if len(part)], ignore_index=True)


def _labelled(model: str, experiment: str, frame: pd.DataFrame) -> pd.DataFrame:
    table = frame.drop(columns="model", errors="ignore")
    table.insert(0, "model", model)
    table.insert(1, "experiment", experiment)
    return table


def plan_files(study: Study) -> dict[int, str]:
    """Place of each model with a plan -> name of its file: plan.json, of several models plan-1.json, ..."""
    several = len(study.models) > 1
    places = (place for place, model in enumerate(study.models) if model.plan is not None)
    return {place: f"plan-{place + 1}.json" if several else "plan.json" for place in places}


def write_results(study: Study, directory: Path) -> None:
    """Writes `results.parquet`, `manifest.json` and the plans into `directory`; makes it if need be.

    Each file is written whole or not at all.
    """
    buffer = io.BytesIO()
    results_table(study).to_parquet(buffer, index=False)
    write_whole(directory / "results.parquet", buffer.getvalue())
    write_whole(directory / "manifest.json", (json.dumps(study.manifest, indent=2) + "\n").encode())
    for place, name in plan_files(study).items():
        plan = study.models[place].plan
        assert plan is not None
        plan.save(directory / name)
