"""Which heads do it: forecasts without the sharpest heads, the most diffuse ones, and random ones.

The claim (arXiv 2602.01605, its third mechanism): sharp heads carry parroting and seasonality, diffuse
ones can go. It is a claim about a difference, so it is judged by one: the effect without the sharpest
heads minus that without as many random ones of the same sublayers, paired by series.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsprune.ablation import Ablation
from tsprune.anatomy import Component
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.evaluation import prepare
from tsprune.evaluation.sampling import PER_CONFIGURATION, sampled
from tsprune.explain.forecast_traits import dominant_period
from tsprune.explain.intervals import Interval, mean_interval, series_means
from tsprune.explain.traits import TRAITS, traits_of
from tsprune.models.forecaster import Forecaster
from tsprune.sweep.engine import run
from tsprune.sweep.result import CLEAN, SweepResult

PERCENTS = (5, 10, 20, 30, 50)
DRAWS = 5
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
        percent, which, heads, effect, mean, low, high, series, and, for sharp and diffuse ones, excess,
        excess_low, excess_high: minus the random sets' (paired; the claim expects it below 0 for
        parroting and seasonality of sharp heads). `mase` is the change of the window's scaled error,
        the traits' the change of the trait itself
    heads : one row a head, its effect on each of `EFFECTS` alone (`_low`, `_high`), lowest parroting first
    clean : of the unablated forecast: the excess of each trait over the true future's
    """

    sets: pd.DataFrame
    heads: pd.DataFrame
    clean: Mapping[str, Interval]


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
    alone = {head: Ablation((head,)) for head in ranked} if single else {}
    cells = list(dict.fromkeys([*(Ablation(x.heads) for x in sets), *alone.values()]))
    result = run(model, chosen, cells, keep={CLEAN, *cells}, progress=progress)
    measured = _Measured(result, chosen, model.context_length)
    clean = {name: mean_interval(measured.excess[name], seed) for name in TRAITS}
    return HeadEffects(_set_rows(sets, measured, seed), _head_rows(alone, measured, seed), clean)


class _Measured:
    """Effects per series of the ablations of a sweep.

    excess : trait -> [S], the unablated forecast's minus the true future's
    """

    def __init__(self, result: SweepResult, suite: Suite, cut: int) -> None:
        self._result = result
        self._rows = [(c, result.rows[c.name]) for c in suite.configurations if c.name in result.rows]
        owners, before = [], 0
        for c, rows in self._rows:
            owners.append(c.series[rows] + before)
            before += int(c.series.max()) + 1
        self._series = np.concatenate(owners)
        self._errors = [prepare(c).season_errors[rows] for c, rows in self._rows]
        self._contexts = [[c.contexts[row][-cut:] for row in rows] for c, rows in self._rows]
        self._periods = [[dominant_period(x) for x in contexts] for contexts in self._contexts]
        self._clean = self._values(CLEAN)
        targets = [c.targets[rows] for c, rows in self._rows]
        future = self._stacked(list(map(traits_of, targets, self._contexts, self._periods)))
        self.excess = {name: self._per_series(self._clean[name] - future[name]) for name in TRAITS}
        self._known: dict[Ablation, Effects] = {}

    def effects(self, ablation: Ablation) -> Effects:
        """Effect -> change per series [S]."""
        if ablation not in self._known:
            values = self._values(ablation)
            self._known[ablation] = {n: self._per_series(values[n] - self._clean[n]) for n in EFFECTS}
        return self._known[ablation]

    def _values(self, ablation: Ablation) -> Effects:
        parts = []
        for index, ((c, rows), errors) in enumerate(zip(self._rows, self._errors, strict=True)):
            median = self._result.forecasts[ablation, c.name].median
            with np.errstate(all="ignore"):
                scaled = np.nanmean(np.abs(c.targets[rows] - median) / errors[:, None], axis=1)
            scaled[~np.isfinite(scaled)] = np.nan
            own = traits_of(median, self._contexts[index], self._periods[index])
            parts.append({"mase": scaled} | own)
        return self._stacked(parts)

    def _stacked(self, parts: Sequence[Effects]) -> Effects:
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _per_series(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return series_means(values, self._series)


def _set_rows(sets: Sequence[HeadSet], measured: _Measured, seed: int) -> pd.DataFrame:
    rows = []
    for percent in dict.fromkeys(x.percent for x in sets):
        of = {which: [x for x in sets if (x.percent, x.which) == (percent, which)] for which in SETS}
        for name in EFFECTS:
            changes = {
                which: np.mean([measured.effects(Ablation(x.heads))[name] for x in members], axis=0)
                for which, members in of.items()
                if members
            }
            for which, values in changes.items():
                found = mean_interval(values, seed)
                row = {"percent": percent, "which": which, "heads": len(of[which][0].heads), "effect": name}
                row |= {"mean": found.mean, "low": found.low, "high": found.high, "series": found.count}
                if which != "random" and "random" in changes:
                    paired = mean_interval(values - changes["random"], seed)
                    row |= {"excess": paired.mean, "excess_low": paired.low, "excess_high": paired.high}
                rows.append(row)
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
    excess, low, high (of the sharp heads over random ones, 95 %), verdict: `holds` if the trait falls
    more without the sharp heads than without random ones, interval and all, `refuted` if it falls
    less, else `open`.
    """
    rows = []
    for model, found in effects.items():
        for (percent, trait), part in found.sets.groupby(["percent", "effect"], sort=False):
            if trait not in ("parroting", "seasonality"):
                continue
            by = part.set_index("which")
            sharp = by.loc["sharp"]
            low, high = sharp.get("excess_low", np.nan), sharp.get("excess_high", np.nan)
            rows.append(
                {
                    "model": model,
                    "percent": percent,
                    "trait": trait,
                    "sharp": sharp["mean"],
                    "diffuse": by.loc["diffuse", "mean"],
                    "excess": sharp.get("excess", np.nan),
                    "low": low,
                    "high": high,
                    "verdict": "holds" if high < 0 else "refuted" if low > 0 else "open",
                }
            )
    return pd.DataFrame(rows)
