"""The table of a frontier: its columns, which points nothing beats, and what to deploy for a loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from tsprune.evaluation import METRICS
from tsprune.evaluation.metrics import per_metric
from tsprune.schema import Column, Schema, Table, estimated

LOSSES = (0.0, 0.01, 0.02, 0.05)
SAME_SCORE = 1e-4  # a change of scores by less is that of sums in another order

FRONTIER = Schema(
    "frontier",
    Column("weights", "original, a pruned version of it, or a sibling", dtype="text"),
    Column("runtime", "what it runs by, a name of `tsprune.choices.RUNTIMES`", dtype="text"),
    Column("parameters", "number of parameters", dtype="count"),
    Column("batch", "windows forecast together", dtype="count"),
    Column("ms", "median of one forecast of the batch", "ms"),
    *estimated("time_ratio", "time divided by that of the original by torch, in turns with it"),
    per_metric("{key}_change", "change of {name} from the original by torch", "relative change"),
    per_metric("{key}_low", "lower 95 % limit of {key}_change", "relative change"),
    per_metric("{key}_high", "upper 95 % limit of {key}_change", "relative change"),
    Column("windows", "windows that it and the original forecast", dtype="count"),
    Column(
        "unbeaten", "whether nothing is as fast and as good at this batch, and better in one", dtype="flag"
    ),
)

ADVICE = Schema(
    "advice",
    Column("batch", "windows forecast together", dtype="count"),
    Column("loss", "relative loss that is allowed"),
    Column("deploy", "the fastest point whose interval's upper end is within the loss", dtype="text"),
    *estimated("time_ratio", "its time divided by that of the original by torch"),
    Column(
        "undecided", "the fastest point whose loss is within, but not its interval; may be ''", dtype="text"
    ),
)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Frontier(Table):
    """A table with the columns of `FRONTIER`.

    metric : by which points are compared
    machine : the conditions of the times, in one line
    """

    metric: str = "MASE"
    machine: str = ""

    @property
    def advice(self) -> pd.DataFrame:
        """The point to deploy for each of `LOSSES` at each batch, with the columns of `ADVICE`."""
        return ADVICE.frame(_advice(self.frame, METRICS.named(self.metric).key))

    @property
    def headline(self) -> str:
        """The advice in sentences."""
        return " ".join(_sentences(self.advice))


def label(weights: object, runtime: object) -> str:
    """The name of a point."""
    return f"{weights} by {runtime}"


def unbeaten(time: Sequence[float], loss: Sequence[float]) -> list[bool]:
    """Whether no other point is at least as fast and as good, and better in one of both.

    >>> unbeaten([1.0, 0.5, 0.6], [0.0, 0.1, 0.2])
    [True, True, False]
    """
    points = list(zip(time, loss, strict=True))
    return [
        not any(fast <= t and good <= x and (fast < t or good < x) for fast, good in points)
        for t, x in points
    ]


def marked(rows: Sequence[dict[str, Any]], metric: str) -> pd.DataFrame:
    """Rows of `FRONTIER` without its last column, as the table; losses below `SAME_SCORE` are equal."""
    frame = pd.DataFrame.from_records(list(rows))
    change = frame[f"{METRICS.named(metric).key}_change"]
    loss = change.where(change.abs() > SAME_SCORE, 0.0)
    frame["unbeaten"] = False
    for _, part in frame.groupby("batch", sort=False):
        frame.loc[part.index, "unbeaten"] = unbeaten(part["time_ratio"].tolist(), loss[part.index].tolist())
    return FRONTIER.checked(frame)


def _advice(frame: pd.DataFrame, key: str) -> Iterator[dict[str, Any]]:
    for batch, part in frame.groupby("batch", sort=False):
        for loss in LOSSES:
            within = part[part[f"{key}_high"] <= loss + SAME_SCORE]  # NaN is not
            chosen = within.loc[within["time_ratio"].idxmin()]
            faster = part["time_ratio"] < chosen["time_ratio"]
            open_ = part[faster & (part[f"{key}_change"] <= loss + SAME_SCORE)]
            perhaps = "" if open_.empty else _named(open_.loc[open_["time_ratio"].idxmin()])
            times = ("time_ratio", "time_ratio_low", "time_ratio_high")
            yield {"batch": batch, "loss": loss, "deploy": _named(chosen), "undecided": perhaps} | {
                name: float(chosen[name]) for name in times
            }


def _named(row: Any) -> str:
    return label(row["weights"], row["runtime"])


def _sentences(advice: pd.DataFrame) -> Iterator[str]:
    """One for each batch; losses with one answer are named together."""
    for batch, part in advice.groupby("batch", sort=False):
        answers = []
        for _, same in part.groupby(["deploy", "undecided"], sort=False):
            row = same.iloc[0]
            losses = [f"{100 * loss:g}" for loss in same["loss"]]
            named = f"{', '.join(losses[:-1])} or {losses[-1]}" if len(losses) > 1 else losses[0]
            fast = ", ".join(f"{1 / row[name]:.2f}" for name in ("time_ratio_high", "time_ratio_low"))
            answer = f"{named} %: {row['deploy']} ({1 / row['time_ratio']:.2f} times as fast [{fast}])"
            if row["undecided"]:
                answer += f", {row['undecided']} is faster, but its interval reaches a larger loss"
            answers.append(answer)
        yield f"Batch {batch}, for a loss of at most {'; '.join(answers)}."
