"""The few numbers of a study that its summaries quote, computed once for page, terminal and picture."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsprune.report import palette
from tsprune.studies.study_result import ModelStudy, Study

Interval = tuple[float, float]
UNKNOWN: Interval = (float("nan"), float("nan"))


@dataclasses.dataclass(frozen=True)
class PruningPoint:
    """What pruning `percent` of the eligible heads cost, by strategy.

    Changes are fractions (0.06 is 6 % worse); NaN where the strategy was not run. `random_*` are
    over `seeds` draws, `random_mean` their geometric mean. `*_interval` are 95 % intervals.
    """

    percent: float
    heads_removed: int
    heads_total: int
    high_to_low: float
    low_to_high: float
    random_mean: float
    random_low: float
    random_high: float
    seeds: int
    high_interval: Interval = UNKNOWN
    low_interval: Interval = UNKNOWN
    random_interval: Interval = UNKNOWN


def pruning_at(model: ModelStudy, percent: float = 30, metric: str = "crps_change") -> PruningPoint | None:
    """The pruned models nearest to `percent`; None if nothing was pruned."""
    if model.pruning.empty:
        return None
    table = model.pruning
    distance = (table["percent"].astype(float) - percent).abs()
    rows = table[distance == distance.min()]
    chance = _of(rows, "random", metric)
    known = chance[np.isfinite(chance)]
    mean, interval = _of_random(model, float(rows["percent"].iloc[0]), metric)
    return PruningPoint(
        percent=float(rows["percent"].iloc[0]),
        heads_removed=int(rows["heads_removed"].iloc[0]),
        heads_total=int(rows["heads_total"].iloc[0]),
        high_to_low=_mean(_of(rows, "high-to-low", metric)),
        low_to_high=_mean(_of(rows, "low-to-high", metric)),
        random_mean=mean,
        random_low=float(known.min()) if known.size else float("nan"),
        random_high=float(known.max()) if known.size else float("nan"),
        seeds=int(known.size),
        high_interval=_interval(rows[rows["strategy"] == "high-to-low"], metric),
        low_interval=_interval(rows[rows["strategy"] == "low-to-high"], metric),
        random_interval=interval,
    )


def _interval(rows: pd.DataFrame, metric: str) -> Interval:
    """The limits beside a change, of the first row."""
    low, high = (metric.removesuffix("change") + side for side in ("low", "high"))
    if rows.empty or low not in rows:
        return UNKNOWN
    return float(rows[low].iloc[0]), float(rows[high].iloc[0])


def _of_random(model: ModelStudy, percent: float, metric: str) -> tuple[float, Interval]:
    """The geometric mean over random draws, and its interval."""
    rows = model.comparisons
    if rows.empty:
        return float("nan"), UNKNOWN
    rows = rows[(rows["versus"] == "unpruned") & (rows["percent"] == percent)]
    rows = rows[rows["metric"] == metric.removesuffix("_change").upper()]
    if rows.empty:
        return float("nan"), UNKNOWN
    mean, low, high = (float(rows[name].iloc[0]) for name in ("difference", "low", "high"))
    return mean, (low, high)


def _of(rows: pd.DataFrame, strategy: str, metric: str) -> NDArray[np.float64]:
    return np.asarray(rows.loc[rows["strategy"] == strategy, metric], dtype=np.float64)


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if values.size else float("nan")


@dataclasses.dataclass(frozen=True)
class LayerEffect:
    """The change of CRPS (a fraction) when one unit of one layer is ablated."""

    stack: str
    layer: int
    unit: str
    change: float
    interval: Interval = UNKNOWN

    def __str__(self) -> str:
        return f"{self.stack}.{self.layer}"


def extreme_layers(model: ModelStudy) -> tuple[LayerEffect, LayerEffect] | None:
    """The layer whose removal hurts most and the one whose removal hurts least, whole layers first.

    Falls back to heads, then MLPs, where no whole layer was ablated; None if nothing is known.
    """
    for unit in ("both", "heads", "mlp"):
        rows = model.layers[model.layers["unit"] == unit]
        rows = rows[np.isfinite(rows["crps_change"].to_numpy(dtype=np.float64))]
        if not rows.empty:
            ordered = rows.sort_values("crps_change")
            return _layer_effect(ordered.iloc[-1]), _layer_effect(ordered.iloc[0])
    return None


def _layer_effect(row: pd.Series[Any]) -> LayerEffect:
    return LayerEffect(
        str(row["stack"]),
        int(cast(int, row["layer"])),
        str(row["unit"]),
        float(cast(float, row["crps_change"])),
        _interval(row.to_frame().T, "crps_change"),
    )


def mlp_summary(study: Study) -> pd.DataFrame:
    """What ablating one MLP costs, one row a stack of a model, encoder-decoder models first.

    Columns model, architecture, stack, MLPs, and of the change of MASE and of CRPS (fractions):
    median, its interval, and largest, e.g. median_mase_change, median_mase_low,
    median_mase_high, largest_mase_change.
    """
    rows = []
    kinds = list(palette.ARCHITECTURE)
    for model in sorted(study.models, key=lambda model: kinds.index(model.architecture)):
        mlps = model.layers[model.layers["unit"] == "mlp"]
        for stack, part in mlps.groupby("stack", sort=False):
            row = {
                "model": model.name,
                "architecture": model.architecture,
                "stack": stack,
                "MLPs": len(part),
            }
            for metric in ("mase", "crps"):
                for name in (f"{metric}_change", f"{metric}_low", f"{metric}_high"):
                    row[f"median_{name}"] = median_mlp(model, str(stack), name)
                row[f"largest_{metric}_change"] = part[f"{metric}_change"].max()
            rows.append(row)
    return pd.DataFrame(rows)


def median_mlp(model: ModelStudy, stack: str, column: str) -> float:
    """A column of `ModelStudy.mlps`; NaN of a stack that is not there."""
    rows = model.mlps[model.mlps["stack"] == stack] if len(model.mlps) else model.mlps
    return float(rows[column].iloc[0]) if len(rows) else float("nan")


def heads_at_totals(model: ModelStudy) -> pd.DataFrame:
    """Heads that must stay, summed over layers: one row an attention sublayer kind.

    Columns stack, attention, heads, and one for each selection there is ("test", "calibration").
    """
    table = model.heads_at
    if table.empty:
        return pd.DataFrame(columns=["stack", "attention", "heads", "test", "calibration"])
    keys = ["stack", "attention"]
    once = table.drop_duplicates([*keys, "layer"]).groupby(keys, sort=False)["heads"].sum()
    stay = table.pivot_table(
        index=keys, columns="selection", values="heads_at", aggfunc="sum", sort=False, observed=True
    )
    totals = pd.concat([once, stay], axis=1).reset_index()
    return totals.reindex(columns=["stack", "attention", "heads", "test", "calibration"])


def tally(study: Study, model: str) -> tuple[int, int, int]:
    """How many claims about `model` were confirmed, refuted and left undecided: all that were tested."""
    verdicts = [claim.verdict for claim in study.claims if claim.model == model]
    return verdicts.count("confirmed"), verdicts.count("refuted"), verdicts.count("undecided")
