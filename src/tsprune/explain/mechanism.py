"""Which heads do it: forecasts without the sharpest heads, the most diffuse ones, and random ones.

The claim (arXiv 2602.01605, its third mechanism): sharp heads carry parroting and seasonality, diffuse
ones can go. It is a claim about a difference, so it is judged by one: the effect without the sharpest
heads minus that without as many random ones of the same sublayers, paired by series. What is random about
it, the series and the draws of heads, is resampled together, so its interval holds the luck of both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsprune.ablation import Ablation
from tsprune.anatomy import Component
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.evaluation import Prepared, prepare
from tsprune.evaluation.sampling import PER_CONFIGURATION, sampled
from tsprune.evaluation.verdicts import Verdict, below, every
from tsprune.explain.forecast_traits import dominant_period
from tsprune.explain.intervals import Interval, crossed_interval, mean_interval, series_means
from tsprune.explain.traits import TRAITS, scaled_errors, traits_on
from tsprune.models.forecaster import Forecaster
from tsprune.sweep.engine import run
from tsprune.sweep.result import CLEAN, SweepResult

PERCENTS = (5, 10, 20, 30, 50)
DRAWS = 5
# a window of a model that samples is as many rows as it has paths, and the records of a clean pass hold them
# all: within these bounds an explanation stays well below 3 GB
BATCH_SIZE = 32
MEMORY = 2**29
SETS = ("sharp", "diffuse", "random")
EFFECTS = ("mase", *TRAITS)

Effects = dict[str, NDArray[np.float64]]


@dataclasses.dataclass(frozen=True)
class HeadSet:
    """`count` heads: the sharpest, the most diffuse, or random ones of draw `draw`."""

    percent: int
    which: str
    draw: int
    heads: tuple[Component, ...]


def head_sets(
    sharpness: Mapping[Component, float],
    *,
    percents: Sequence[int] = PERCENTS,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[HeadSet]:
    """The sets of heads to compare.

    sharpness : of every head that can be ranked (NaN: cannot)

    Shares are of each sublayer, so that all sets hold as many heads of every sublayer (rounded, ties
    of the ranking broken by order of execution); a percentage too small for one head anywhere is left out.
    """
    sublayers: dict[Component, list[Component]] = {}
    for head, value in sharpness.items():
        if np.isfinite(value):
            sublayers.setdefault(dataclasses.replace(head, head=None), []).append(head)
    found = []
    for percent in percents:
        counts = _shared_out(sublayers, percent)
        if not any(counts.values()):
            continue

        def chosen(
            order: Callable[[Component, list[Component]], list[Component]],
            counts: dict[Component, int] = counts,
        ) -> tuple[Component, ...]:
            return tuple(h for site, heads in sublayers.items() for h in order(site, heads)[: counts[site]])

        found.append(
            HeadSet(percent, "sharp", 0, chosen(lambda _, x: sorted(x, key=lambda h: -sharpness[h])))
        )
        found.append(
            HeadSet(percent, "diffuse", 0, chosen(lambda _, x: sorted(x, key=lambda h: sharpness[h])))
        )
        for draw in range(draws):
            rng = np.random.default_rng([seed, percent, draw])
            random = chosen(lambda _, x, rng=rng: [x[i] for i in rng.permutation(len(x))])  # type: ignore[misc]
            found.append(HeadSet(percent, "random", draw, random))
    return found


def _shared_out(sublayers: Mapping[Component, list[Component]], percent: int) -> dict[Component, int]:
    """Heads to take from each sublayer: `percent` of all, as evenly as whole heads allow.

    Where shares are not whole, the sublayers in the middle of the model give the additional heads.
    """
    total = round(percent / 100 * sum(map(len, sublayers.values())))
    shares = {site: percent / 100 * len(heads) for site, heads in sublayers.items()}
    counts = {site: int(share) for site, share in shares.items()}
    middle = sorted(sublayers, key=lambda site: abs(list(sublayers).index(site) - len(sublayers) / 2))
    for site in middle[: max(0, total - sum(counts.values()))]:
        counts[site] += 1
    return counts


@dataclasses.dataclass(frozen=True)
class HeadEffects:
    """What forecasts lose without heads, with 95 % intervals over series.

    sets : one row a percentage, set (`SETS`; random: mean of the draws) and effect (`EFFECTS`):
        percent, which, heads, effect, mean, low, high, series; for random ones draw_low and draw_high, the
        lowest and highest mean of a draw; for sharp and diffuse ones excess, excess_low, excess_high:
        minus the random sets' (paired; the claim expects it below 0 for parroting and seasonality of
        sharp heads). `mase` is the change of the window's scaled error, the traits' the change of the
        trait itself
    heads : one row a head, its effect on each of `EFFECTS` alone (`_low`, `_high`), lowest parroting first
    clean : of the unablated forecast: the excess of each trait over the true future's
    overall : the excess of `sets` averaged over the percentages, one row a set (sharp, diffuse) and effect:
        which, effect, excess, low, high, series
    """

    sets: pd.DataFrame
    heads: pd.DataFrame
    clean: Mapping[str, Interval]
    overall: pd.DataFrame = dataclasses.field(default_factory=pd.DataFrame)


def head_effects(
    model: Forecaster,
    suite: Suite,
    sharpness: Mapping[str, float],
    *,
    per_configuration: int = PER_CONFIGURATION,
    percents: Sequence[int] = PERCENTS,
    draws: int = DRAWS,
    single: bool = True,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> HeadEffects:
    """Ablates sharp, diffuse and random heads together, and every head alone.

    sharpness : by address, as `attention(model, suite).heads` has it
    single : whether heads are also ablated alone

    Raises TspruneError if no head has a sharpness, or the suite no windows.
    """
    ranked = {c: float(sharpness.get(c.address, np.nan)) for c in model.anatomy.components("head")}
    sets = head_sets(ranked, percents=percents, draws=draws, seed=seed)
    if not sets:
        raise TspruneError(f"{model.name}: no head has a sharpness to be ranked by")
    chosen = sampled(suite, model, per_configuration)
    prepared = [prepare(configuration) for configuration in chosen.configurations]
    alone = {head: Ablation((head,)) for head in ranked} if single else {}
    cells = list(dict.fromkeys([*(Ablation(x.heads) for x in sets), *alone.values()]))
    result = run(
        model,
        chosen,
        cells,
        batch_size=BATCH_SIZE,
        keep={CLEAN, *cells},
        prepared=prepared,
        progress=progress,
        memory=MEMORY,
    )
    measured = _Measured(result, prepared, cells, model.context_length)
    clean = {name: mean_interval(measured.excess[name], seed) for name in TRAITS}
    return HeadEffects(
        _set_rows(sets, measured, seed),
        _head_rows(alone, measured, seed),
        clean,
        _overall_rows(sets, measured, seed),
    )


class _Measured:
    """Effects per series of the ablations `cells` of a sweep.

    excess : trait -> [S], the unablated forecast's minus the true future's
    """

    def __init__(
        self, result: SweepResult, prepared: Sequence[Prepared], cells: Sequence[Ablation], cut: int
    ) -> None:
        self._place = {cell: place for place, cell in enumerate(cells)}
        tables, owners, before = [], [], 0
        for p in prepared:
            c = p.configuration
            if c.name not in result.rows:
                continue
            rows = result.rows[c.name]
            medians = np.stack([result.forecasts[cell, c.name].median for cell in (CLEAN, *cells)], axis=1)
            windows = zip(rows, medians, strict=True)
            tables += [_of_window(p, int(row), median, cut) for row, median in windows]
            owners.append(c.series[rows] + before)
            before += int(c.series.max()) + 1
        table = np.stack(tables)  # [windows, effects, future and unablated and cells]
        series = np.concatenate(owners)
        excess = series_means(table[:, :, 1] - table[:, :, 0], series)
        self.excess = {name: excess[:, EFFECTS.index(name)] for name in TRAITS}
        changes = table[:, :, 2:] - table[:, :, 1:2]
        self._changes = series_means(changes, series)  # [S, effects, cells]

    def effects(self, ablation: Ablation) -> Effects:
        """Effect -> change per series [S]."""
        of = self._changes[:, :, self._place[ablation]]
        return {name: of[:, number] for number, name in enumerate(EFFECTS)}


def _of_window(prepared: Prepared, row: int, medians: NDArray[np.float32], cut: int) -> NDArray[np.float64]:
    """`EFFECTS` of one window's future and forecasts [M, H], [effects, 1 + M]."""
    c = prepared.configuration
    context, target = c.contexts[row][-cut:], c.targets[row]
    values = np.concatenate([target[None], medians])
    scaled = scaled_errors(values, target, prepared.season_errors[row])
    return np.vstack([scaled, traits_on(values, context, dominant_period(context))])


def _set_rows(sets: Sequence[HeadSet], measured: _Measured, seed: int) -> pd.DataFrame:
    rows = []
    for percent in dict.fromkeys(x.percent for x in sets):
        of = {which: [x for x in sets if (x.percent, x.which) == (percent, which)] for which in SETS}
        for name in EFFECTS:
            changes = _changes(of, measured, name)
            for which, values in changes.items():
                found = mean_interval(values.mean(axis=0), seed)
                row = {"percent": percent, "which": which, "heads": len(of[which][0].heads), "effect": name}
                row |= {"mean": found.mean, "low": found.low, "high": found.high, "series": found.count}
                if which == "random":
                    row |= _lowest_to_highest(values)
                elif "random" in changes:
                    paired = crossed_interval(values - changes["random"], seed)
                    row |= {"excess": paired.mean, "excess_low": paired.low, "excess_high": paired.high}
                rows.append(row)
    return pd.DataFrame(rows)


def _changes(
    of: Mapping[str, Sequence[HeadSet]], measured: _Measured, name: str
) -> dict[str, NDArray[np.float64]]:
    """Set -> change of an effect, [draws, S] (one draw but for random ones)."""
    return {
        which: np.stack([measured.effects(Ablation(x.heads))[name] for x in members])
        for which, members in of.items()
        if members
    }


def _lowest_to_highest(values: NDArray[np.float64]) -> dict[str, float]:
    means = [mean_interval(draw).mean for draw in values]
    return {"draw_low": min(means), "draw_high": max(means)}


def _overall_rows(sets: Sequence[HeadSet], measured: _Measured, seed: int) -> pd.DataFrame:
    """The excess over random sets, averaged over percentages: draw i of each is one draw of all."""
    percents = list(dict.fromkeys(x.percent for x in sets))
    rows = []
    for name in EFFECTS:
        by_percent = []
        for percent in percents:
            of = {which: [x for x in sets if (x.percent, x.which) == (percent, which)] for which in SETS}
            by_percent.append(_changes(of, measured, name))
        for which in ("sharp", "diffuse"):
            if not all("random" in changes for changes in by_percent):
                continue
            excess = np.mean([changes[which] - changes["random"] for changes in by_percent], axis=0)
            found = crossed_interval(excess, seed)
            row = {"which": which, "effect": name, "excess": found.mean}
            rows.append(row | {"low": found.low, "high": found.high, "series": found.count})
    return pd.DataFrame(rows)


def _head_rows(alone: Mapping[Component, Ablation], measured: _Measured, seed: int) -> pd.DataFrame:
    rows = []
    for head, ablation in alone.items():
        row: dict[str, object] = {"address": head.address}
        for name in EFFECTS:
            found = mean_interval(measured.effects(ablation)[name], seed)
            row |= {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}
        rows.append(row)
    frame = pd.DataFrame(rows)
    return frame.sort_values("parroting", kind="stable", ignore_index=True) if len(frame) else frame


def verdicts(effects: Mapping[str, HeadEffects]) -> pd.DataFrame:
    """Does the paper's third mechanism hold? One row a model, percentage and trait.

    effects : model -> `head_effects` of it

    Columns: model, percent, trait (parroting, seasonality), sharp, diffuse (mean change of the trait),
    excess, low, high (of the sharp heads over random ones, 95 %), verdict on the claim
    that the trait falls more without the sharp heads than without random ones (see
    `tsprune.evaluation.verdicts`).
    """
    rows = []
    for model, found in effects.items():
        for (percent, trait), part in found.sets.groupby(["percent", "effect"], sort=False):
            if trait not in ("parroting", "seasonality"):
                continue
            by = part.set_index("which")
            sharp = by.loc["sharp"]
            excess = _interval(sharp, "excess", "excess_low", "excess_high")
            rows.append(
                {
                    "model": model,
                    "percent": percent,
                    "trait": trait,
                    "sharp": sharp["mean"],
                    "diffuse": by.loc["diffuse", "mean"],
                    "excess": excess.mean,
                    "low": excess.low,
                    "high": excess.high,
                    "verdict": below(excess, 0.0),
                }
            )
    return pd.DataFrame(rows)


# claim -> (ablated heads, effect): each says that the excess over random heads is below 0
CLAIMS = {
    "sharp heads carry parroting": ("sharp", "parroting"),
    "sharp heads carry seasonality": ("sharp", "seasonality"),
    "diffuse heads can go": ("diffuse", "mase"),
}
WHOLE = "all three"


def mechanism_table(effects: Mapping[str, HeadEffects]) -> pd.DataFrame:
    """The paper's third mechanism, claim by claim: one row a model and claim, and one for all of them.

    effects : model -> `head_effects` of it

    Columns: model, claim (`CLAIMS`, `WHOLE`), excess, low, high (over random heads, averaged over all
    percentages, 95 % over series and draws), series, verdict on the claim that the excess is below 0;
    the whole is confirmed if every claim is, and refuted if any is (see `tsprune.evaluation.verdicts`).
    """
    rows = []
    for model, found in effects.items():
        judged: list[Verdict] = []
        for claim, (which, effect) in CLAIMS.items():
            part = found.overall
            if len(part):
                part = part[(part["which"] == which) & (part["effect"] == effect)]
            excess = _interval(part.iloc[0] if len(part) else {}, "excess", "low", "high")
            judged.append(below(excess, 0.0))
            row = {"model": model, "claim": claim, "excess": excess.mean, "low": excess.low}
            rows.append(row | {"high": excess.high, "series": excess.count, "verdict": judged[-1]})
        rows.append({"model": model, "claim": WHOLE, "verdict": every(judged)})
    return pd.DataFrame(rows)


def _interval(row: Mapping[str, Any] | pd.Series, mean: str, low: str, high: str) -> Interval:
    """The interval in these columns of a row; NaN where the row lacks them."""
    known = dict(row)
    middle, least, most = (float(known.get(name, np.nan)) for name in (mean, low, high))
    return Interval(middle, least, most, int(known.get("series", 0)))
