"""Scores of heads and MLPs in a study, and which of them tell the exact effect of an ablation.

Scores that need windows are computed on a few calibration windows, before the sweep; the exact effects
they are held against are the sweep's on the other series, so noise is not shared. The exact effect on
the calibration series is among the scores: it says what could be reached.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from tsprune.anatomy import DESCRIPTION, Component, Kind
from tsprune.data.split import CALIBRATION_FRACTION, split
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.evaluation import METRICS
from tsprune.evaluation.sampling import sampled
from tsprune.models.forecaster import Forecaster
from tsprune.scores import (
    agreement_table,
    available_scores,
    score_table,
)
from tsprune.scores.activations import measure_activations
from tsprune.scores.effects import EFFECT_SCORES
from tsprune.scores.weight_scores import measure_weights
from tsprune.statistics import correlation_row, holm
from tsprune.studies.experiments import Plan
from tsprune.sweeps.sweep_result import Masks, SweepResult

# few, for a study measures all scores of every model; the report says how many windows these were
PER_CONFIGURATION = 8
SVD = "attention_stable_rank"

KINDS: tuple[Kind, ...] = ("head", "mlp")


@dataclasses.dataclass(frozen=True)
class Rankings:
    """Scores of every head and MLP.

    table : as `tsprune.scores.score_table` gives it
    windows : calibration windows that scores of data were computed on
    skipped : (scores, reason) of those that the model does not have
    """

    table: pd.DataFrame
    windows: int
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def heads(self) -> pd.DataFrame:
        return self.table[self.table["kind"] == "head"]

    def svd(self, ranking: pd.DataFrame) -> pd.DataFrame | None:
        """`tsprune.rank`'s table with heads scored by the stable rank of their attention maps.

        None if no head has such a rank: maps of a single query have none.
        """
        if SVD not in self.table or self.heads[SVD].isna().all():
            return None
        scores = self.heads.set_index("address")[SVD]
        return ranking.assign(score=ranking["address"].map(scores))


def measured(model: Forecaster, suite: Suite, *, batch_size: int, seed: int) -> Rankings:
    """All scores of a model but the exact effects, which the sweep has anyway."""
    calibration, _ = split(suite, fraction=CALIBRATION_FRACTION, seed=seed)
    few = sampled(calibration, model, PER_CONFIGURATION)
    windows = few if len(few) else None
    kinds = tuple(kind for kind in KINDS if model.anatomy.components(kind))
    families: dict[Callable[..., object], list[str]] = {}
    for score in available_scores(model, windows, kinds):
        if score not in EFFECT_SCORES:
            families.setdefault(score.measure, []).append(score.name)

    def scored(names: Sequence[str]) -> pd.DataFrame:
        return score_table(model, windows, by=names, kinds=kinds, batch_size=batch_size, seed=seed)

    sure = [name for measure in (measure_weights, measure_activations) for name in families.pop(measure, [])]
    table = scored(sure)
    left_out: list[tuple[str, str]] = []
    for names in families.values():
        try:
            table = table.merge(scored(names), on=list(DESCRIPTION), validate="one_to_one")
        except TspruneError as error:  # such as frozen parameters, which have no gradient
            left_out.append((f"{model.name}: scores {', '.join(names)}", str(error)))
    return Rankings(table, len(few), tuple(left_out))


def agreement(rankings: Rankings, result: SweepResult, wanted: Plan, calibration: Masks) -> pd.DataFrame:
    """Columns as in `ModelStudy.agreement`."""
    ablations = dict(wanted.heads) | {
        Component(key.stack, key.layer, mlp=True): ablation
        for key, ablation in wanted.layers.items()
        if key.unit == "mlp"
    }
    report = {name: ~mask for name, mask in calibration.items()}

    def exact(masks: Masks) -> pd.DataFrame:
        changes = {component.address: result.change(one, masks) for component, one in ablations.items()}
        frame = pd.DataFrame({"address": list(changes)})
        for metric in METRICS.values():
            frame[f"{metric.key}_change"] = [change[metric.name] for change in changes.values()]
        frame["spearman_distance"] = [change.spearman for change in changes.values()]
        return frame

    scores = rankings.table.merge(exact(calibration), on="address", validate="one_to_one")
    table = agreement_table(scores, exact(report))
    corrected = table.groupby(["kind", "group", "metric"], sort=False)["p_value"].transform(holm)
    table.insert(table.columns.get_loc("p_value") + 1, "p_holm", corrected)  # type: ignore[arg-type]
    return table


def svd_correlation(rankings: Rankings) -> pd.DataFrame:
    """How alike both rankings of heads are; columns as in `ModelStudy.svd_correlation`."""
    rows = []
    if SVD in rankings.table:
        for (stack, attention), heads in rankings.heads.groupby(["stack", "attention"], sort=False):
            plain, maps = (heads[name].to_numpy(np.float64) for name in ("stable_rank", SVD))
            rows.append({"stack": stack, "attention": attention, **correlation_row(plain, maps)})
    columns = ["stack", "attention", "rho", "low", "high", "p_value", "count"]
    return pd.DataFrame(rows, columns=columns)
