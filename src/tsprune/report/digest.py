"""The numbers that summaries of a study quote, computed once for page, terminal and picture."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from tsprune.evaluation.metrics import CRPS, METRICS
from tsprune.report import palette
from tsprune.statistics import UNKNOWN, Estimate
from tsprune.studies.study_result import ModelStudy, Study

# the metric of summaries, and of figures that show a single one; the column of its relative changes
HEADLINE, HEADLINE_CHANGE = CRPS.name, f"{CRPS.key}_change"


def shown_metrics() -> list[str]:
    """The names of all metrics, the headline metric first."""
    return sorted(METRICS, key=lambda name: name != HEADLINE)


def change_column(metric: str) -> str:
    """The column of relative changes of a metric: "MASE" -> "mase_change"."""
    return f"{METRICS[metric].key}_change"


@dataclasses.dataclass(frozen=True)
class PruningPoint:
    """The cost of pruning `percent` of the eligible heads.

    changes : relative change (0.06: 6 % worse) by strategy; for "random", the geometric mean over draws
    draws : changes of the single random draws, in ascending order
    """

    percent: float
    heads_removed: int
    heads_total: int
    changes: Mapping[str, Estimate]
    draws: tuple[float, ...]


def pruning_at(model: ModelStudy, percent: float = 30) -> PruningPoint | None:
    """The pruned models nearest to `percent` removed; None if nothing was pruned."""
    table = model.pruning
    if table.empty:
        return None
    distance = (table["percent"].astype(float) - percent).abs()
    rows = table[distance == distance.min()]
    first = rows.iloc[0]
    draws = rows.loc[rows["strategy"] == "random", HEADLINE_CHANGE].astype(float)
    changes = {}
    for strategy in ("high-to-low", "low-to-high", "random"):
        curve = pruning_curve(model, strategy, HEADLINE)
        here = curve[curve["percent"] == float(first["percent"])]
        changes[strategy] = _estimate(here.iloc[0], "change") if len(here) else UNKNOWN
    removed, total = int(first["heads_removed"]), int(first["heads_total"])
    finite = tuple(sorted(draws[np.isfinite(draws)]))
    return PruningPoint(float(first["percent"]), removed, total, changes, finite)


def pruning_curve(model: ModelStudy, strategy: str, metric: str) -> pd.DataFrame:
    """One strategy in ascending order of heads removed: columns percent, change, low, high.

    Random draws give their geometric mean, with the interval over all possible draws.
    """
    if strategy != "random":
        rows, key = model.pruning, METRICS[metric].key
        names = [change_column(metric), f"{key}_low", f"{key}_high"]
        rows = rows[rows["strategy"] == strategy]
    else:
        rows, names = model.comparisons, ["difference", "low", "high"]
        if len(rows):
            rows = rows[(rows["versus"] == "unpruned") & (rows["metric"] == metric)]
    columns = ["percent", "change", "low", "high"]
    curve = rows.reindex(columns=["percent", *names]).set_axis(columns, axis=1).astype(float)
    return curve.sort_values("percent")


def _estimate(row: pd.Series[Any], column: str, stem: str = "") -> Estimate:
    """The value of a column with its interval (p and count are not in the table)."""
    value, low, high = (float(row.get(name, math.nan)) for name in (column, f"{stem}low", f"{stem}high"))
    return Estimate(value, low, high, math.nan, 0)


@dataclasses.dataclass(frozen=True)
class LayerEffect:
    """The change of the headline metric by ablating one unit ("both", "heads", "mlp") of one layer."""

    layer: str
    unit: str
    change: Estimate


def extreme_layers(model: ModelStudy) -> tuple[LayerEffect, LayerEffect] | None:
    """The layers whose ablation changes the headline metric most and least; None if no layer was ablated.

    Whole layers are compared; heads, then MLPs, where no whole layer was ablated.
    """
    for unit in ("both", "heads", "mlp"):
        rows = model.layers[model.layers["unit"] == unit]
        rows = rows[np.isfinite(rows[HEADLINE_CHANGE].to_numpy(float))].sort_values(HEADLINE_CHANGE)
        if len(rows):
            found = []
            for row in (rows.iloc[-1], rows.iloc[0]):
                change = _estimate(row, HEADLINE_CHANGE, f"{CRPS.key}_")
                found.append(LayerEffect(f"{row['stack']}.{row['layer']}", unit, change))
            return found[0], found[1]
    return None


def mlp_summary(study: Study) -> pd.DataFrame:
    """The effect of ablating one MLP, one row per stack of a model, in the order of architectures.

    Columns model, architecture, stack, MLPs, and for each metric the median of the relative change, its
    interval, and the largest change (median_mase_change, median_mase_low, median_mase_high,
    largest_mase_change, ...).
    """
    rows = []
    order = list(palette.ARCHITECTURE)
    for model in sorted(study.models, key=lambda model: order.index(model.architecture)):
        mlps = model.layers[model.layers["unit"] == "mlp"]
        for stack, part in mlps.groupby("stack", sort=False):
            row = {"model": model.name, "architecture": model.architecture, "stack": stack, "MLPs": len(part)}
            for metric in (one.key for one in METRICS.values()):
                for name in (f"{metric}_change", f"{metric}_low", f"{metric}_high"):
                    row[f"median_{name}"] = median_mlp(model, str(stack), name)
                row[f"largest_{metric}_change"] = part[f"{metric}_change"].max()
            rows.append(row)
    return pd.DataFrame(rows)


def median_mlp(model: ModelStudy, stack: str, column: str) -> float:
    """A column of `ModelStudy.mlps`; NaN for an unknown stack."""
    rows = model.mlps[model.mlps["stack"] == stack] if len(model.mlps) else model.mlps
    return float(rows[column].iloc[0]) if len(rows) else float("nan")


def heads_at_totals(model: ModelStudy) -> pd.DataFrame:
    """Heads that must stay, summed over layers: one row per kind of attention sublayer.

    Columns stack, attention, heads, test, calibration; NaN for a selection that was not made.
    """
    table, keys = model.heads_at, ["stack", "attention"]
    columns = [*keys, "heads", "test", "calibration"]
    if table.empty:
        return pd.DataFrame(columns=columns)
    once = table.drop_duplicates([*keys, "layer"]).groupby(keys, sort=False)["heads"].sum()
    stay = table.pivot_table(
        index=keys, columns="selection", values="heads_at", aggfunc="sum", sort=False, observed=True
    )
    return pd.concat([once, stay], axis=1).reset_index().reindex(columns=columns)


def tally(study: Study, model: str) -> tuple[int, int, int]:
    """Numbers of claims about `model` that were confirmed, refuted and left undecided."""
    verdicts = [claim.verdict for claim in study.claims if claim.model == model]
    return verdicts.count("confirmed"), verdicts.count("refuted"), verdicts.count("undecided")
