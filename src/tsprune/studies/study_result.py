"""What a study found, as tables: the report draws them, `results.parquet` stores them."""

from __future__ import annotations

import dataclasses
from typing import Literal

import pandas as pd

from tsprune.anatomy import Architecture
from tsprune.explain.examples import Example as Example
from tsprune.explain.overview import Explanation
from tsprune.statistics import Verdict

ClaimVerdict = Verdict | Literal["not applicable"]


@dataclasses.dataclass(frozen=True)
class Claim:
    """A headline claim of the paper, held against one model (or all of them: model is "all").

    statement : the claim in one sentence
    evidence : the numbers measured here, in one sentence
    value, low, high : the change, or difference, that the claim is about, with its 95 % interval (of
        several, one; `evidence` has them all); NaN if it does not apply
    p_holm : p-value of the claim, corrected over its family (the claims about one model)
    agreement : share of bootstrap seeds that give this verdict; below 1 it is undecided
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
    """Everything measured on one checkpoint.

    baseline : one row a configuration; columns configuration, windows, MASE, CRPS,
        seasonal_naive_MASE, seasonal_naive_CRPS, MASE_ratio, CRPS_ratio
    mase_ratio, crps_ratio : geometric means over configurations relative to Seasonal Naive
    mase_interval, crps_interval : (low, high) of those means

    Changes below are relative changes of those geometric means by an ablation: 0.06 is 6 % worse. Each
    has its 95 % interval beside it in columns _low and _high (see `tsprune.statistics`; NaN where there is
    too little data for one). p_holm is a p-value of no change, corrected for all tests
    of its family. "Changes" stands for the columns mase_change, mase_low, mase_high, crps_change,
    crps_low, crps_high, spearman_distance.

    layers : one row a layer and unit; columns stack, layer, unit ("heads", "mlp", "both"), address,
        changes, mase_p_holm, crps_p_holm (family: one unit's layers)
    heads : one row a head; columns address, stack, layer, attention, head, stable_rank,
        stable_rank_effective, changes, mase_p_holm, crps_p_holm (family: all heads)
    rank_correlation : Spearman correlation of stable rank with the heads' ablation effect; columns
        stack, attention, variant ("paper", "effective"), metric, correlation, low, high (over heads),
        p_value (of no relation), p_holm (family: the table), heads
    pruning : one row a pruned model; columns percent (10, 20, ...), strategy ("high-to-low",
        "low-to-high"; by the rank of attention maps "svd-high-to-low", "svd-low-to-high"; "random"),
        seed, heads_removed, heads_total, changes
    heads_at : one row a layer, attention sublayer and selection; columns stack, layer, attention,
        heads, selection ("test", "calibration"), order ("high-to-low", "low-to-high"),
        removed (n), heads_at (heads that must stay), score_change (of the n on the report windows),
        score_low, score_high
    mlps : median over the MLPs of a stack ("all": of all stacks), each ablated alone; columns stack, count,
        mase_change, mase_low, mase_high, crps_change, crps_low, crps_high
    comparisons : strategies of `pruning` against each other; columns percent, metric, strategy, versus
        ("random": the geometric mean over draws; another strategy; "unpruned", for what random pruning
        costs), difference (relative: (1 + a) / (1 + b) - 1 of both changes), low, high, p_holm (family:
        one metric's rows; NaN of rows that a claim decides, see `claims`), draws, beaten (how many random
        draws cost more than the strategy)
    agreement : rank correlation of every score with the exact effect of ablating single components, on
        series the scores have not seen; columns as in `tsprune.scores.agreement_table`, and p_holm
        (family: the scores of one kind, group and metric)
    svd_correlation : of heads' stable rank with that of their attention maps; columns stack,
        attention, rho, low, high (over heads), p_value, count
    score_windows : windows that the scores which need data were computed on
    samples : paths drawn per window; None if the model does not sample
    explanation : why heads and layers matter, on a part of the windows; None if it was not asked for
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


@dataclasses.dataclass(frozen=True)
class Study:
    """A study of one or more checkpoints on one suite.

    manifest : versions, checkpoint SHA-256, data fingerprint, seeds, arguments (JSON-able)
    skipped : (what, reason) of everything that could not be evaluated
    """

    suite: str
    windows: int
    percent: float
    models: tuple[ModelStudy, ...]
    claims: tuple[Claim, ...]
    skipped: tuple[tuple[str, str], ...]
    manifest: dict[str, object]
