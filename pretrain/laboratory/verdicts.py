"""Statements that would answer the three questions, each with a verdict from the results alone.

Seeds are the replicates: intervals are Student's t over the seeds of a condition, Welch's for two conditions.
A condition with fewer than `LEAST_SEEDS` decides nothing, nor does a coefficient of `answers.regression` that
rests on such conditions. The statements of a question are one family of tests; verdicts are those of
`tsprune.statistics.verdicts`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import pandas as pd

from pretrain.laboratory.answers import BASE, TOLERATED, regression, separated
from pretrain.laboratory.seeds import LEAST_SEEDS, difference, mean_of, shown_p
from tsprune.statistics import Estimate
from tsprune.statistics.estimate import UNKNOWN
from tsprune.statistics.verdicts import Known, Side, judged

_TOLERATED = math.log1p(TOLERATED)


@dataclasses.dataclass(frozen=True)
class Quantity:
    """Something measured that a statement says is below or above a limit.

    estimate : p is of the null hypothesis that the quantity equals the limit
    seeds : of the condition with the fewest, of those that are compared
    """

    name: str
    estimate: Estimate
    side: Side
    seeds: int
    limit: float = 0.0

    @property
    def test(self) -> Known:
        """Its p-value is 1 if seeds are too few: what is not measured yet counts in the correction."""
        beyond = {name: getattr(self.estimate, name) - self.limit for name in ("value", "low", "high")}
        p = 1.0 if self.seeds < LEAST_SEEDS or math.isnan(self.estimate.p) else self.estimate.p
        return Known(dataclasses.replace(self.estimate, **beyond, p=p), self.side)

    def __str__(self) -> str:
        if math.isnan(self.estimate.value):
            return f"{self.name} not measured"
        one = self.estimate
        shown = f"{self.name} {one.value:+.3f}"
        limits = f" [{one.low:+.3f}, {one.high:+.3f}]" if one.has_interval else ""
        few = (
            ""
            if self.seeds >= LEAST_SEEDS
            else f" ({'one seed' if self.seeds == 1 else f'{self.seeds} seeds'})"
        )
        return f"{shown}{limits}{few}"


Statements = Mapping[str, list[Quantity]]


class _Conditions:
    """Quantities of conditions, by column of `answers.of_runs`."""

    def __init__(self, runs: pd.DataFrame) -> None:
        self._runs = runs

    def _of(self, condition: str, column: str) -> pd.Series:
        return self._runs.loc[self._runs["condition"] == condition, column]

    def one(self, condition: str, column: str, side: Side, limit: float = 0.0) -> Quantity:
        """The mean of a column over the seeds of a condition."""
        values = self._of(condition, column)
        return Quantity(condition, mean_of(values, limit), side, int(values.count()), limit)

    def minus(self, condition: str, other: str, column: str, side: Side) -> Quantity:
        """The difference of a column between two conditions."""
        values, others = self._of(condition, column), self._of(other, column)
        seeds = int(min(values.count(), others.count()))
        return Quantity(f"{condition} - {other}", difference(values, others), side, seeds)

    def paired(self, condition: str, column: str, other: str, side: Side) -> Quantity:
        """The difference of two columns, run by run."""
        gap = self._of(condition, column) - self._of(condition, other)
        return Quantity(condition, mean_of(gap), side, int(gap.count()))


def architecture(runs: pd.DataFrame) -> Statements:
    """Question 1. Damage is log(1 + change of MASE); shares are the MLPs' of the damage."""
    of = _Conditions(runs)

    def smaller(condition: str, *others: str) -> list[Quantity]:
        return [of.minus(condition, other, "mlp share", "below") for other in others]

    return {
        "A decoder needs its MLPs: one costs more than 6 % of MASE": [
            of.one(name, "one mlp", "above", _TOLERATED) for name in (BASE, "moirai2")
        ],
        "An encoder-decoder does not: one costs less than 6 %": [
            of.one(name, "one mlp", "below", _TOLERATED) for name in ("bolt", "bolt-16")
        ],
        "MLPs have a smaller share of an encoder-decoder's damage than of both decoders'": smaller(
            "bolt", BASE, "moirai2"
        ),
        "MLPs have a smaller share of an encoder's damage than of both decoders'": smaller(
            "chronos2", BASE, "moirai2"
        ),
        "Two decoders differ: the share is smaller in Moirai-2 than in TimesFM": smaller("moirai2", BASE),
        "Depth is not the reason: with 8 + 8 layers the share is smaller than the decoder's, too": smaller(
            "bolt-16", BASE
        ),
        "Accuracy is not the reason: the share is smaller than in TimesFM decoders that are as inaccurate": [
            of.minus(condition, decoder, "mlp share", "below")
            for condition, decoder in (
                ("chronos2", "short"),
                ("bolt", "unparroting"),
                ("moirai2", "unparroting"),
            )
        ],
        "Depth is the reason: a decoder of 16 layers has a smaller share than one of 8": smaller(
            "depth-16", BASE
        ),
        "Density of supervision is the reason: with the loss at the last patch only the decoder's share is "
        "smaller": smaller("last-patch", BASE),
        "The objective is the reason: with squared error, and with a likelihood, the decoder's share is "
        "smaller": [*smaller("squared-error", BASE), *smaller("student-t", BASE)],
    }


def parroting(runs: pd.DataFrame, rows: pd.DataFrame) -> Statements:
    """Question 2. Parroting is its excess over the true future's; CRPS is relative to Seasonal Naive."""
    of = _Conditions(runs)
    excess = "pocket excess_parroting"
    crps = "pocket CRPS"
    found = {
        "Trained without periodic series, a model parrots less": [
            of.minus("aperiodic", BASE, excess, "below")
        ],
        "Trained without periodic series, a model forecasts periodic series worse": [
            of.minus("aperiodic", BASE, "periodic CRPS", "above")
        ],
        "A penalty on excess parroting lowers it": [of.minus("unparroting", BASE, excess, "below")],
        "A penalty on excess parroting costs accuracy on real series": [
            of.minus("unparroting", BASE, crps, "above")
        ],
        "A penalty on excess parroting costs accuracy on periodic series": [
            of.minus("unparroting", BASE, "periodic CRPS", "above")
        ],
        "A penalty on excess parroting costs accuracy on series without a period": [
            of.minus("unparroting", BASE, "aperiodic CRPS", "above")
        ],
    }
    return {**found, **_removal(rows)}


def _removal(rows: pd.DataFrame) -> Statements:
    """Statements on removed heads, run by run."""
    wide = separated(rows)

    def minus(metric: str, unit: str, other: str, side: Side) -> Quantity:
        known = not wide.empty and {unit, other} <= set(wide.index.get_level_values(0))
        gap = wide.loc[unit, metric] - wide.loc[other, metric] if known else pd.Series(dtype=float)
        word = {"CRPS": "CRPS", "excess_parroting": "parroting"}[metric]
        return Quantity(f"{word}, {unit} - {other}", mean_of(gap), side, int(gap.count()))

    whole, pruned = "nothing removed", "carriers, as pruned"
    distilled, trained = "carriers, distilled", "carriers, trained"
    return {
        "Without the heads that carry parroting, a model parrots less than without random ones": [
            minus("excess_parroting", pruned, "random, as pruned", "below")
        ],
        "Without the heads that carry parroting, a model is less accurate than without random ones": [
            minus("CRPS", pruned, "random, as pruned", "above")
        ],
        "Distillation brings accuracy and parroting back": [
            minus("CRPS", distilled, pruned, "below"),
            minus("excess_parroting", distilled, pruned, "above"),
        ],
        "Training on data brings accuracy and parroting back": [
            minus("CRPS", trained, pruned, "below"),
            minus("excess_parroting", trained, pruned, "above"),
        ],
        "After either training, a model without the carriers parrots less than one without random heads": [
            minus("excess_parroting", distilled, "random, distilled", "below"),
            minus("excess_parroting", trained, "random, trained", "below"),
        ],
        "Training on data leaves less parroting than the original has": [
            minus("excess_parroting", trained, whole, "below")
        ],
        "Training on data leaves less accuracy than the original has": [
            minus("CRPS", trained, whole, "above")
        ],
    }


def redundancy(runs: pd.DataFrame) -> Statements:
    """Question 3. A lower area is more redundant; coefficients are those of the regression."""
    of = _Conditions(runs)
    (fitted, _), (alike, _) = (regression(runs, accuracy=accuracy) for accuracy in (False, True))

    def coefficient(
        name: str, side: Side, column: str, *, among: pd.DataFrame = runs, of: pd.DataFrame = fitted
    ) -> list[Quantity]:
        if name not in of.index:
            return [Quantity(name, UNKNOWN, side, 0)]
        value, low, high, p = (float(of.loc[name, c]) for c in ("coefficient", "low", "high", "p"))
        return [Quantity(name, Estimate(value, low, high, p, len(runs)), side, _seeds_of(among, column))]

    def supervised(name: str, of: pd.DataFrame = fitted) -> list[Quantity]:
        among = runs[runs["supervision"].isin(["base", name])]
        name = f"{name} in place of the base's supervision"
        return coefficient(name, "below", "supervision", among=among, of=of)

    def depth(of: pd.DataFrame) -> list[Quantity]:
        return coefficient("twice the depth", "below", "layers", of=of)

    def steps(of: pd.DataFrame) -> list[Quantity]:
        return coefficient("twice the steps", "above", "steps", of=of)

    return {
        "Depth makes layers redundant": depth(fitted),
        "Depth makes layers redundant at equal accuracy": depth(alike),
        "With as many parameters, 32 layers are more redundant than 8, and 8 than 2": [
            of.minus(deeper, other, "area", "below") for deeper, other in (("deep", BASE), (BASE, "wide"))
        ],
        "Width makes layers redundant": coefficient("twice the width", "below", "width"),
        "Longer training makes layers less redundant": steps(fitted),
        "Longer training makes layers less redundant at equal accuracy": steps(alike),
        "The loss at the last patch only makes layers redundant": supervised("last-patch"),
        "Squared error makes layers redundant": supervised("squared-error"),
        "A likelihood makes layers redundant": supervised("student-t"),
        "Layer dropout makes layers redundant": supervised("dropout"),
        "Layer dropout makes layers redundant at equal accuracy": supervised("dropout", of=alike),
        "28 % of the heads and two MLPs cost less than 6 % of MASE in 16 layers": [
            of.one("depth-16", "paper", "below", _TOLERATED)
        ],
        "28 % of the heads and two MLPs cost less than 6 % of MASE in 32 layers": [
            of.one("depth-32", "paper", "below", _TOLERATED)
        ],
        "Heads by stable rank cost less than as many at random, in 16 and in 32 layers": [
            of.paired(name, "paper", "random", "below") for name in ("depth-16", "depth-32")
        ],
    }


def _seeds_of(runs: pd.DataFrame, column: str) -> int:
    """The second largest number of seeds over a column's values: a coefficient compares at least two."""
    counts = runs.groupby([column, "condition"]).size().groupby(level=0).max().sort_values()
    return int(counts.iloc[-2]) if len(counts) > 1 else 0


def table(statements: Statements) -> pd.DataFrame:
    """A row a statement: its verdict, the quantities, and the p-value, corrected over the statements.

    The p-value is empty where seeds are too few.
    """
    verdicts = judged([[quantity.test for quantity in of] for of in statements.values()])
    rows = {
        statement: {
            "verdict": one.verdict,
            "measured": "; ".join(map(str, of)),
            "corrected p": shown_p(one.p) if min(q.seeds for q in of) >= LEAST_SEEDS else "",
        }
        for (statement, of), one in zip(statements.items(), verdicts, strict=True)
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("statement")


def answer(table: pd.DataFrame) -> str:
    """The statements of `table` that are decided, a line each, and how many are not."""
    lines = [
        f"- **{one}**: {statement}."
        for verdict in ("confirmed", "refuted")
        for statement, one in table["verdict"].items()
        if one == verdict
    ]
    undecided = int((table["verdict"] == "undecided").sum())
    return "\n".join([*lines, f"- **undecided**: {undecided} of {len(table)} statements (below)."])


def tables(rows: pd.DataFrame, runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The verdicts on each question, by name of its page.

    rows, runs : `results.published()` and `answers.of_runs`
    """
    found: dict[str, Callable[[], Statements]] = {
        "architecture": lambda: architecture(runs),
        "parroting": lambda: parroting(runs, rows),
        "redundancy": lambda: redundancy(runs),
    }
    return {name: table(statements()) for name, statements in found.items()}
