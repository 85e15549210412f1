"""What a study found, as tables: the report draws them, `results.parquet` stores them."""

from __future__ import annotations

import dataclasses
from typing import Literal

import pandas as pd

from tsprune.anatomy import Architecture
from tsprune.explain.examples import Example as Example
from tsprune.explain.overview import Explanation

Verdict = Literal["confirmed", "refuted", "inconclusive", "not applicable"]


@dataclasses.dataclass(frozen=True)
class Claim:
    """A headline claim of the paper, held against one model (or all of them: model is "all").

    statement : the claim in one sentence
    evidence : the numbers measured here, in one sentence
    """

    model: str
    statement: str
    verdict: Verdict
    evidence: str


@dataclasses.dataclass(frozen=True)
class ModelStudy:
    """Everything measured on one checkpoint.

    baseline : one row a configuration; columns configuration, windows, MASE, CRPS,
        seasonal_naive_MASE, seasonal_naive_CRPS, MASE_ratio, CRPS_ratio
    mase_ratio, crps_ratio : geometric means over configurations relative to Seasonal Naive

    Changes below are relative changes of those geometric means by an ablation: 0.06 is 6 % worse.

    layers : one row a layer and unit; columns stack, layer, unit ("heads", "mlp", "both"), address,
        mase_change, crps_change, spearman_distance
    heads : one row a head; columns address, stack, layer, attention, head, stable_rank,
        stable_rank_effective, mase_change, crps_change, spearman_distance
    rank_correlation : Spearman correlation of stable rank with the heads' ablation effect; columns
        stack, attention, variant ("paper", "effective"), metric, correlation, p_value, heads
    pruning : one row a pruned model; columns percent (10, 20, ...), strategy ("high-to-low",
        "low-to-high", "random"), seed, heads_removed, heads_total, mase_change, crps_change,
        spearman_distance
    heads_at : one row a layer, attention sublayer and selection; columns stack, layer, attention,
        heads, selection ("test", "calibration"), order ("high-to-low", "low-to-high"),
        removed (n), heads_at (heads that must stay), score_change (of the n on the report windows)
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
