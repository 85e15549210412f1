"""From a sweep to the tables of a study, every change with its interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tsprune.data.suite import Suite
from tsprune.evaluation import METRICS
from tsprune.pruning.heads_at import Prefix, Prefixes
from tsprune.statistics import Sample, correlation, holm
from tsprune.studies.claims import PRUNED_PERCENT
from tsprune.studies.experiments import LayerUnit, Plan, PrunedHeads
from tsprune.studies.study_effects import Effects
from tsprune.sweeps.samples import change_sample
from tsprune.sweeps.sweep_result import CLEAN, Masks, SweepResult

PRUNING_KEYS = ["percent", "strategy", "seed", "heads_removed", "heads_total"]
COMPARISONS = ["percent", "metric", "strategy", "versus", "difference", "low", "high", "p_holm"]
COMPARISONS += ["draws", "beaten"]
ALL = "all"  # the row of all stacks together
# strategies that are compared with each other, besides each of them with random draws
PAIRS = (
    ("high-to-low", "low-to-high"),
    ("svd-low-to-high", "high-to-low"),
    ("svd-high-to-low", "high-to-low"),
)


def layers_table(effects: Effects, wanted: Plan) -> pd.DataFrame:
    """Columns as in `ModelStudy.layers`; the layers of all stacks are one family for each unit."""

    def address(key: LayerUnit) -> str:
        suffix = {"heads": ".*.head.*", "mlp": ".mlp", "both": ""}[key.unit]
        return f"{key.stack}.{key.layer}{suffix}"

    keys, ablations = list(wanted.layers), list(wanted.layers.values())
    names = pd.DataFrame(
        {"stack": key.stack, "layer": key.layer, "unit": key.unit, "address": address(key)} for key in keys
    )
    table = pd.concat([names, effects.columns(ablations)], axis=1)
    for metric in METRICS:
        table[f"{METRICS[metric].key}_p_holm"] = np.nan
        for unit in names["unit"].unique():
            family = np.flatnonzero(names["unit"] == unit)
            corrected = effects.corrected([ablations[row] for row in family], metric)
            table.loc[family, f"{METRICS[metric].key}_p_holm"] = corrected
    return table


def mlps_table(effects: Effects, wanted: Plan) -> pd.DataFrame:
    """Columns as in `ModelStudy.mlps`."""
    rows = []
    every = [(key.stack, one) for key, one in wanted.layers.items() if key.unit == "mlp"]
    for stack in (*dict.fromkeys(stack for stack, _ in every), ALL):
        mlps = [one for name, one in every if stack in (name, ALL)]
        if not mlps:
            continue
        row: dict[str, object] = {"stack": stack, "count": len(mlps)}
        for metric in METRICS:
            change = effects.of(mlps, metric).median().estimate(seed=effects.seed)
            name = METRICS[metric].key
            row |= {
                f"{name}_change": change.value,
                f"{name}_low": change.low,
                f"{name}_high": change.high,
            }
        rows.append(row)
    return pd.DataFrame(rows)


def heads_table(effects: Effects, wanted: Plan, ranking: pd.DataFrame) -> pd.DataFrame:
    """Columns as in `ModelStudy.heads`; the heads of a model are one family."""
    ablations = list(wanted.heads.values())
    found = effects.columns(ablations)
    for metric in METRICS:
        found[f"{METRICS[metric].key}_p_holm"] = effects.corrected(ablations, metric)
    found.insert(0, "address", [head.address for head in wanted.heads])
    return ranking.drop(columns=["score", "rank"]).merge(found, on="address", validate="one_to_one")


def pruning_table(effects: Effects, wanted: Plan) -> pd.DataFrame:
    """Columns as in `ModelStudy.pruning`."""
    ablations = list(wanted.pruning.values())
    names = pd.DataFrame(
        [
            [key.percent, key.strategy, key.seed, len(ablation.components), key.total]
            for key, ablation in wanted.pruning.items()
        ],
        columns=PRUNING_KEYS,
    )
    return pd.concat([names, effects.columns(ablations)], axis=1)


# --- strategies against each other ---------------------------------------------------------------


def strategies_at(effects: Effects, wanted: Plan, percent: int, metric: str) -> dict[str, Sample]:
    """The change of every strategy that removes `percent` of the middle layers' heads; "random" as draws."""
    ablations: dict[str, list[PrunedHeads]] = {}
    for key in wanted.pruning:
        if key.percent == percent:
            ablations.setdefault(key.strategy, []).append(key)
    found = {
        strategy: effects.of([wanted.pruning[key] for key in keys], metric)
        for strategy, keys in ablations.items()
    }
    if "random" in found:
        found["random"] = found["random"].as_draws()
    return found


def comparisons_table(effects: Effects, wanted: Plan) -> pd.DataFrame:
    """Strategies against random draws and against each other; columns as in `ModelStudy.comparisons`.

    The interval of a comparison with random draws is about their mean over all draws there could have been:
    configurations and draws are resampled. Holm's family is one metric's rows, without those that the
    claims test: these have one answer, which is there.
    """
    tables = []
    for metric in METRICS:
        rows: list[list[object]] = []
        p_values: list[float] = []
        for percent in dict.fromkeys(key.percent for key in wanted.pruning):
            found = strategies_at(effects, wanted, percent, metric)
            chance = found.pop("random")
            costs = chance.values.mean(axis=(1, 2))
            pairs = [("random", "unpruned", chance)]
            pairs += [(name, "random", one.minus(chance)) for name, one in found.items()]
            pairs += [(a, b, found[a].minus(found[b])) for a, b in PAIRS if a in found and b in found]
            for strategy, versus, difference in pairs:
                change = difference.estimate(seed=effects.seed)
                beaten = int((found[strategy].means()[0] < costs).sum()) if versus == "random" else None
                # the cost of random pruning by itself compares no strategies
                decided = versus == "unpruned" or _claimed(percent, metric, strategy, versus)
                p_values.append(float("nan") if decided else change.p)
                numbers = change.value, change.low, change.high, np.nan
                drawn = len(costs) if "random" in (strategy, versus) else None
                rows.append([percent, metric, strategy, versus, *numbers, drawn, beaten])
        table = pd.DataFrame(rows, columns=COMPARISONS)
        table["p_holm"] = holm(p_values)
        tables.append(table)
    both = pd.concat(tables, ignore_index=True)
    return both.astype({"draws": "Int64", "beaten": "Int64"})


def _claimed(percent: int, metric: str, strategy: str, versus: str) -> bool:
    """Whether a claim of `tsprune.studies.claims` tests this comparison."""
    ours = strategy == "high-to-low" and versus in ("random", "low-to-high")
    return ours and percent == PRUNED_PERCENT and metric == "MASE"


# --- heads that must stay ------------------------------------------------------------------------


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
    """`heads_at_frame`'s table with the interval of score_change: columns score_low and score_high.

    On the windows that the change is measured on: all of them where heads were chosen on the test
    windows (so the interval does not know that the best was picked), the report windows otherwise.
    """
    report = {name: ~mask for name, mask in calibration.items()}
    table = heads_at.copy()
    table["score_low"], table["score_high"] = np.nan, np.nan
    for selection, masks in (("test", None), ("calibration", report)):
        rows = table.index[table["selection"] == selection]
        keys = [
            Prefix(row["stack"], row["layer"], row["attention"], row["order"], row["removed"])
            for row in table.loc[rows].to_dict("records")
        ]
        ablations = [prefixes[key] if key.count else CLEAN for key in keys]
        if not ablations:
            continue
        found = change_sample(result, suite, ablations, metric, masks=masks).estimates(seed=seed)
        table.loc[rows, "score_low"], table.loc[rows, "score_high"] = found.low, found.high
    return table


# --- stable rank and effect ----------------------------------------------------------------------


def rank_correlation(heads: pd.DataFrame) -> pd.DataFrame:
    """Spearman correlation of both stable ranks with the ablation effect, per attention kind.

    heads : the table of `ModelStudy.heads`; columns of the result as in `ModelStudy`

    Intervals are over heads, p-values of no relation, corrected over the table.
    """
    rows = []
    for (stack, attention), group in heads.groupby(["stack", "attention"], sort=False):
        for variant, column in (("paper", "stable_rank"), ("effective", "stable_rank_effective")):
            for metric in METRICS:
                found = correlation(_floats(group[column]), _floats(group[f"{METRICS[metric].key}_change"]))
                rows.append(
                    {
                        "stack": stack,
                        "attention": attention,
                        "variant": variant,
                        "metric": metric,
                        "correlation": found.value,
                        "low": found.low,
                        "high": found.high,
                        "p_value": found.p,
                        "heads": found.count,
                    }
                )
    table = pd.DataFrame(rows)
    table.insert(len(table.columns) - 1, "p_holm", holm(table["p_value"]))
    return table


def _floats(values: Sequence[float] | pd.Series) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)
