"""From a sweep to the tables of a study, every change with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsprune.data.suite import Suite
from tsprune.evaluation import METRICS, prepare
from tsprune.evaluation.changes import Scored, change
from tsprune.hooks.ablation import Ablation
from tsprune.pruning.heads_at import Prefix, Prefixes
from tsprune.statistics import LEVEL, SEEDS, Estimates, Sample, correlation, holm
from tsprune.statistics.bootstrap import DRAWS
from tsprune.studies import study_result as schemas
from tsprune.studies.experiments import PRUNED_PERCENT, StudyPlan
from tsprune.sweeps.samples import change_sample
from tsprune.sweeps.sweep_result import CLEAN, Masks, SweepResult

STATISTICAL_METHODS: dict[str, object] = {
    "intervals": "studentised bootstrap over configurations (over series, of a single configuration), of log "
    "ratios; Student's t below five units",
    "level": LEVEL,
    "draws": DRAWS,
    "families": "Holm; the claims about one model are one family",
    "verdicts": f"undecided unless {SEEDS} bootstrap seeds agree",
}
_ALL = "all"  # the row of all stacks together
# pairs of strategies that are compared, in addition to each with random draws
_PAIRS = (
    ("high-to-low", "low-to-high"),
    ("svd-low-to-high", "high-to-low"),
    ("svd-high-to-low", "high-to-low"),
)


class Effects:
    """Changes of all metrics by the ablations of a sweep, on the same units: any two can be paired."""

    def __init__(
        self,
        result: SweepResult,
        suite: Suite,
        ablations: Sequence[Ablation],
        *,
        masks: Masks | None = None,
        seed: int = 0,
    ) -> None:
        """`masks` : the windows that count, as in `SweepResult.change`; `seed` : of the bootstrap."""
        self._result, self._masks, self.seed = result, masks, seed
        self._column = {ablation: column for column, ablation in enumerate(dict.fromkeys(ablations))}
        self._samples: Mapping[str, Sample] = {
            metric: change_sample(result, suite, list(self._column), metric, masks=masks)
            for metric in METRICS
        }

    def of(self, ablations: Sequence[Ablation], metric: str) -> Sample:
        """The changes of some ablations, in that order."""
        return self._samples[metric].columns([self._column[ablation] for ablation in ablations])

    def estimates(self, ablations: Sequence[Ablation], metric: str) -> Estimates:
        """Estimates of the changes of some ablations."""
        return self.of(ablations, metric).estimates(seed=self.seed)

    def columns(self, ablations: Sequence[Ablation]) -> pd.DataFrame:
        """One row per ablation: mase_change, mase_low, mase_high, ... of every metric, spearman_distance."""
        changes = [self._result.change(ablation, self._masks) for ablation in ablations]
        found: dict[str, object] = {}
        for name, metric in METRICS.items():
            estimates = self.estimates(ablations, name)
            found[f"{metric.key}_change"] = np.array([one[name] for one in changes], dtype=float)
            found[f"{metric.key}_low"], found[f"{metric.key}_high"] = estimates.low, estimates.high
        found["spearman_distance"] = np.array([one.spearman for one in changes], dtype=float)
        return pd.DataFrame(found)

    def corrected(self, ablations: Sequence[Ablation], metric: str) -> NDArray[np.float64]:
        """p-values of no change of a family of ablations, with Holm's correction."""
        return holm(self.estimates(ablations, metric).p)


def ratio_interval(result: SweepResult, suite: Suite, metric: str, seed: int) -> tuple[float, float]:
    """(low, high) of the unablated model's metric relative to Seasonal Naive's on the same windows."""
    scored = []
    for c in suite.configurations:
        if (rows := result.rows.get(c.name)) is not None:
            naive, clean = prepare(c).baseline.select(rows), result.scores[CLEAN][c.name].statistics
            scored.append(Scored(c.name, naive, [clean], c.series[rows]))
    found = change(scored, metric, seed=seed)
    return 1 + found.low, 1 + found.high


def layers_table(effects: Effects, wanted: StudyPlan) -> pd.DataFrame:
    """The table `LAYERS`; the layers of all stacks are one family for each unit."""
    ablations = list(wanted.layers.values())
    names = pd.DataFrame(
        [(key.stack, key.layer, key.unit, key.address) for key in wanted.layers],
        columns=["stack", "layer", "unit", "address"],
    )
    table = pd.concat([names, effects.columns(ablations)], axis=1)
    for name, metric in METRICS.items():
        table[f"{metric.key}_p_holm"] = np.nan
        for unit in names["unit"].unique():
            family = np.flatnonzero(names["unit"] == unit)
            corrected = effects.corrected([ablations[row] for row in family], name)
            table.loc[family, f"{metric.key}_p_holm"] = corrected
    return schemas.LAYERS.checked(table)


def heads_table(effects: Effects, wanted: StudyPlan, ranking: pd.DataFrame) -> pd.DataFrame:
    """The table `HEADS`; the heads of a model are one family."""
    ablations = list(wanted.heads.values())
    found = effects.columns(ablations)
    for name, metric in METRICS.items():
        found[f"{metric.key}_p_holm"] = effects.corrected(ablations, name)
    found.insert(0, "address", [head.address for head in wanted.heads])
    table = ranking.drop(columns=["score", "rank"]).merge(found, on="address", validate="one_to_one")
    return schemas.HEADS.checked(table)


def pruning_table(effects: Effects, wanted: StudyPlan) -> pd.DataFrame:
    """The table `PRUNING`."""
    names = pd.DataFrame(
        [
            (key.percent, key.strategy, key.seed, len(ablation.components), key.total)
            for key, ablation in wanted.pruning.items()
        ],
        columns=["percent", "strategy", "seed", "heads_removed", "heads_total"],
    )
    changes = effects.columns(list(wanted.pruning.values()))
    return schemas.PRUNING.checked(pd.concat([names, changes], axis=1))


def mlps_table(effects: Effects, wanted: StudyPlan) -> pd.DataFrame:
    """The table `MLPS`."""
    rows = []
    for stack in (*dict.fromkeys(mlp.stack for mlp in wanted.mlps), _ALL):
        mlps = [ablation for mlp, ablation in wanted.mlps.items() if stack in (mlp.stack, _ALL)]
        if not mlps:
            continue
        row: dict[str, object] = {"stack": stack, "count": len(mlps)}
        for name, metric in METRICS.items():
            found = effects.of(mlps, name).median().estimate(seed=effects.seed)
            row[f"{metric.key}_change"] = found.value
            row[f"{metric.key}_low"], row[f"{metric.key}_high"] = found.low, found.high
        rows.append(row)
    return schemas.MLPS.frame(rows)


def strategies_at(effects: Effects, wanted: StudyPlan, percent: int, metric: str) -> dict[str, Sample]:
    """Changes by strategy that removes `percent` of the middle layers' heads; "random" as draws."""
    ablations: dict[str, list[Ablation]] = {}
    for key, ablation in wanted.pruning.items():
        if key.percent == percent:
            ablations.setdefault(key.strategy, []).append(ablation)
    found = {strategy: effects.of(some, metric) for strategy, some in ablations.items()}
    if "random" in found:
        found["random"] = found["random"].as_draws()
    return found


def comparisons_table(effects: Effects, wanted: StudyPlan) -> pd.DataFrame:
    """The table `COMPARISONS`: strategies against random draws and against each other.

    The interval of a comparison with random draws is about the mean over all possible draws: configurations
    and draws are resampled. Holm's family is one metric's rows, without those that the claims test, which
    have their p-value there.
    """
    tables = []
    for metric in METRICS:
        rows: list[dict[str, object]] = []
        p_values: list[float] = []
        for percent in dict.fromkeys(key.percent for key in wanted.pruning):
            found = strategies_at(effects, wanted, percent, metric)
            chance = found.pop("random")
            costs = chance.values.mean(axis=(1, 2))
            pairs = [("random", "unpruned", chance)]
            pairs += [(name, "random", one.minus(chance)) for name, one in found.items()]
            pairs += [(a, b, found[a].minus(found[b])) for a, b in _PAIRS if a in found and b in found]
            for strategy, versus, difference in pairs:
                change = difference.estimate(seed=effects.seed)
                beaten = int((found[strategy].means()[0] < costs).sum()) if versus == "random" else None
                # the loss of random pruning alone compares no strategies
                elsewhere = versus == "unpruned" or _claimed(percent, metric, strategy, versus)
                p_values.append(float("nan") if elsewhere else change.p)
                row = {"percent": percent, "metric": metric, "strategy": strategy, "versus": versus}
                numbers = {"difference": change.value, "low": change.low, "high": change.high}
                draws = len(costs) if "random" in (strategy, versus) else None
                rows.append({**row, **numbers, "p_holm": np.nan, "draws": draws, "beaten": beaten})
        table = schemas.COMPARISONS.frame(rows)
        table["p_holm"] = holm(p_values)
        tables.append(table)
    return pd.concat(tables, ignore_index=True).astype({"draws": "Int64", "beaten": "Int64"})


def _claimed(percent: int, metric: str, strategy: str, versus: str) -> bool:
    """Whether a claim of `tsprune.studies.claims` tests this comparison."""
    ours = strategy == "high-to-low" and versus in ("random", "low-to-high")
    return ours and percent == PRUNED_PERCENT and metric == "MASE"


def with_intervals(
    heads_at: pd.DataFrame,
    result: SweepResult,
    suite: Suite,
    prefixes: Prefixes,
    *,
    metric: str,
    calibration: Masks,
    seed: int,
) -> pd.DataFrame:
    """The table of `heads_at_frame` with the interval of score_change: the table `HEADS_AT_INTERVALS`.

    The interval is over the windows that the change is measured on: all with selection "test" (it ignores
    that the best order was chosen on them), the report windows with "calibration".
    """
    report = {name: ~mask for name, mask in calibration.items()}
    table = heads_at.copy()
    table["score_low"], table["score_high"] = np.nan, np.nan
    for selection, masks in (("test", None), ("calibration", report)):
        rows = table.index[table["selection"] == selection]
        names = ["stack", "layer", "attention", "order", "removed"]
        keys = [Prefix(*row) for row in table.loc[rows, names].itertuples(index=False)]
        ablations = [prefixes[key] if key.count else CLEAN for key in keys]
        if not ablations:
            continue
        found = change_sample(result, suite, ablations, metric, masks=masks).estimates(seed=seed)
        table.loc[rows, "score_low"], table.loc[rows, "score_high"] = found.low, found.high
    return schemas.HEADS_AT_INTERVALS.checked(table)


def rank_correlation(heads: pd.DataFrame) -> pd.DataFrame:
    """The table `RANK_CORRELATION` of a table `HEADS`; the table is one family."""
    rows = []
    for (stack, attention), group in heads.groupby(["stack", "attention"], sort=False):
        for variant, column in (("paper", "stable_rank"), ("effective", "stable_rank_effective")):
            for name, metric in METRICS.items():
                ranks, changes = (group[one].to_numpy(np.float64) for one in (column, f"{metric.key}_change"))
                found = correlation(ranks, changes)
                names = (stack, attention, variant, name)
                rows.append((*names, found.value, found.low, found.high, found.p, np.nan, found.count))
    table = pd.DataFrame(rows, columns=list(schemas.RANK_CORRELATION.names))
    table["p_holm"] = holm(table["p_value"])
    return schemas.RANK_CORRELATION.checked(table)
