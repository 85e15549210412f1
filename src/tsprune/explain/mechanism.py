"""Effects of heads on forecasts: without the sharpest heads, the most diffuse ones, and random ones.

The claim (arXiv 2602.01605, its third mechanism): sharp heads carry parroting and seasonality, diffuse heads
can be removed. Sharpness is measured from attention on data (`tsprune.explain.attention`). Stable rank
predicts it without data; `tsprune.explain.mechanism_claims` tests how well.

1. Sets of equal size: the sharpest heads, the most diffuse heads, and as many random heads of each sublayer.
2. Sets of equal damage: a trait also falls where the forecast is ruined. The change without sharp heads is
   therefore read off at the error that random heads of each share cost, by linear interpolation between two
   sizes of the sharp set (`equal_damage`).
3. Intervals: configurations are the units, crossed with the random draws, so that an interval covers the
   variation of both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Unpack

import numpy as np
import pandas as pd

from tsprune.anatomy import Component
from tsprune.arguments import checked
from tsprune.data.suite import Configuration, Suite
from tsprune.errors import TspruneError
from tsprune.evaluation import prepare
from tsprune.evaluation.sampling import PER_CONFIGURATION, sampled
from tsprune.explain.forecast_traits import TRAITS, dominant_period, scaled_errors, traits_on
from tsprune.hooks.ablation import Ablation
from tsprune.models.forecaster import Forecaster
from tsprune.run_options import Options, RunOptions
from tsprune.schema import Column, Schema, estimated
from tsprune.statistics import Estimate, Sample, holm, unit_means
from tsprune.statistics.estimate import Array
from tsprune.sweeps.engine import run
from tsprune.sweeps.sweep_result import CLEAN, SweepResult

SET_SHARES = (0.05, 0.1, 0.2, 0.3, 0.5)
RANDOM_SETS = 5
EFFECTS = ("mase", *TRAITS)

# shares of the sharpest heads between which equal damage is interpolated
LADDER = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
# percentage at which levels are tested
_CLAIM_PERCENT = 30

SET_EFFECTS = Schema(
    "effects",
    Column("percent", "of the heads of each sublayer ablated", "%"),
    Column("which", "sharp, diffuse or random (mean of the draws) heads", dtype="text"),
    Column("heads", "ablated", dtype="count"),
    Column("effect", "changed quantity: mase (scaled error of a window) or a trait", dtype="text"),
    *estimated("mean", "mean change", limits=""),
    Column("units", "configurations, or series of a single one", dtype="count"),
    Column("draw_low", "lowest mean of a random draw", optional=True),
    Column("draw_high", "highest mean of a random draw", optional=True),
    *estimated("excess", "minus the change without random heads, paired", optional=True),
)
EFFECT_COLUMNS = tuple(
    column
    for name in EFFECTS
    for column in (
        *estimated(name, f"change of {name} without the head", optional=True),
        Column(f"{name}_p_holm", "p-value of no change, corrected for all heads", optional=True),
    )
)
HEAD_EFFECTS = Schema(
    "head_effects",
    Column("address", "of the head", dtype="text"),
    *EFFECT_COLUMNS,
)


@dataclasses.dataclass(frozen=True)
class HeadSet:
    """The sharpest, the most diffuse, or random heads: `percent` of each sublayer; `draw` of random ones."""

    percent: float
    which: str
    draw: int
    heads: tuple[Component, ...]


def head_sets(
    sharpness: Mapping[Component, float],
    *,
    shares: Sequence[float] = SET_SHARES,
    draws: int = RANDOM_SETS,
    seed: int = 0,
) -> list[HeadSet]:
    """The sets of heads to compare; heads of NaN sharpness are in none.

    All sets of a share contain the same number of heads of each sublayer (rounded). Ties of the ranking are
    broken by order of execution. A share too small for a single head is left out.
    """
    sublayers: dict[Component, list[Component]] = {}
    for head, value in sharpness.items():
        if np.isfinite(value):
            sublayers.setdefault(dataclasses.replace(head, head=None), []).append(head)
    found = []
    for percent in (round(100 * share, 6) for share in shares):
        counts = _heads_to_take(sublayers, percent)
        if not any(counts.values()):
            continue
        for which, draw in (("sharp", 0), ("diffuse", 0), *(("random", draw) for draw in range(draws))):
            rng = np.random.default_rng([seed, int(percent), draw])
            chosen: list[Component] = []
            for site, heads in sublayers.items():
                ordered = sorted(heads, key=lambda head: sharpness[head], reverse=which == "sharp")
                if which == "random":
                    ordered = [heads[place] for place in rng.permutation(len(heads))]
                chosen += ordered[: counts[site]]
            found.append(HeadSet(percent, which, draw, tuple(chosen)))
    return found


def _heads_to_take(
    sublayers: Mapping[Component, Sequence[Component]], percent: float
) -> dict[Component, int]:
    """Number of heads per sublayer: `percent` of all, as evenly as whole heads allow.

    Sublayers in the middle of the model give the heads that rounding down leaves missing.
    """
    total = round(percent / 100 * sum(map(len, sublayers.values())))
    counts = {site: int(percent / 100 * len(heads)) for site, heads in sublayers.items()}
    middle = sorted(sublayers, key=lambda site: abs(list(sublayers).index(site) - len(sublayers) / 2))
    for site in middle[: max(0, total - sum(counts.values()))]:
        counts[site] += 1
    return counts


@dataclasses.dataclass(frozen=True)
class SetSamples:
    """Effects of sets of heads as samples of one quantity, averaged over the shares.

    change : (which, effect) -> change without the sharp or the diffuse heads
    excess : (which, effect) -> `change` minus the change without as many random heads
    matched : trait -> change without sharp heads minus change without random heads, at equal damage; all NaN
        without sets of equal damage
    error : which -> relative change of the scaled error without `percent` of the heads
    percent : of `error`
    """

    change: Mapping[tuple[str, str], Sample]
    excess: Mapping[tuple[str, str], Sample]
    matched: Mapping[str, Sample]
    error: Mapping[str, Sample]
    percent: float


@dataclasses.dataclass(frozen=True)
class HeadEffects:
    """Changes of forecasts without heads, with 95 % intervals over configurations (`tsprune.statistics`).

    sets : one row per share, set and effect; columns in `SET_EFFECTS`
    heads : one row per head ablated alone, lowest parroting first; columns in `HEAD_EFFECTS`
    clean : trait -> excess of the unablated forecast over the true future's
    samples : tested by `tsprune.explain.mechanism_table`; None without random sets
    """

    sets: pd.DataFrame
    heads: pd.DataFrame
    clean: Mapping[str, Estimate]
    samples: SetSamples | None = None


def forecast_options(options: RunOptions) -> RunOptions:
    """Options of the sweeps of an explanation: half the batch size and a quarter of the memory.

    A window of a model that samples takes as many rows as paths, and a record holds all of them.
    """
    return options.replace(batch_size=max(1, options.batch_size // 2), memory=options.memory // 4)


@checked
def head_effects(
    model: Forecaster,
    suite: Suite,
    sharpness: Mapping[str, float],
    *,
    per_configuration: int = PER_CONFIGURATION,
    shares: Sequence[float] = SET_SHARES,
    draws: int = RANDOM_SETS,
    single: bool = True,
    **options: Unpack[Options],
) -> HeadEffects:
    """Ablates sharp, diffuse and random heads together, and every head alone.

    sharpness : by address, as in `attention(model, suite).heads`
    per_configuration : windows per configuration, at most, evenly spread
    shares : of the heads of each sublayer; draws : random sets per share
    single : whether heads are also ablated alone
    options : keywords of `tsprune.run_options.RunOptions`. Half of `batch_size` and a quarter of `memory` are
        used (models that sample have many rows per window). A `store` keeps the forecasts as well

    Raises TspruneError if no head has a sharpness, or for a suite without windows.
    """
    chosen = forecast_options(RunOptions(**options))
    ranked = {c: float(sharpness.get(c.address, np.nan)) for c in model.anatomy.components("head")}
    sets = head_sets(ranked, shares=shares, draws=draws, seed=chosen.seed)
    if not sets:
        raise TspruneError(f"{model.name}: no head has a sharpness to rank it by")
    ladder = [x for x in head_sets(ranked, shares=LADDER, draws=0) if x.which == "sharp"]
    windows = sampled(suite, model, per_configuration)
    alone = {head.address: Ablation((head,)) for head in ranked} if single else {}
    cells = list(dict.fromkeys([*(Ablation(x.heads) for x in (*sets, *ladder)), *alone.values()]))
    result = run(model, windows, cells, keep={CLEAN, *cells}, stage="effects", **chosen.keywords())
    measured = _Measured(result, windows.configurations, cells, model.context_length)
    changes = _changes(sets, measured)
    return HeadEffects(
        _set_rows(sets, changes, measured, chosen.seed),
        _head_rows(alone, measured, chosen.seed),
        {trait: measured.excess(trait).estimate(seed=chosen.seed) for trait in TRAITS},
        _samples(sets, ladder, changes, measured),
    )


# --- measurements --------------------------------------------------------------------------------


class _Measured:
    """Effects of the ablations `cells` of a sweep, by unit."""

    def __init__(
        self,
        result: SweepResult,
        configurations: Sequence[Configuration],
        cells: Sequence[Ablation],
        cut: int,
    ) -> None:
        self._place = {cell: place for place, cell in enumerate(cells)}
        tables, series, owners = [], [], []
        for c in configurations:
            if c.name not in result.rows:
                continue
            rows = result.rows[c.name]
            medians = np.stack([result.forecasts[cell, c.name].median for cell in (CLEAN, *cells)], axis=1)
            for row, median in zip(rows, medians, strict=True):
                context, target = c.contexts[row][-cut:], c.targets[row]
                values = np.concatenate([target[None], median])
                scaled = scaled_errors(values, target, prepare(c).season_errors[row])
                tables.append(np.vstack([scaled, traits_on(values, context, dominant_period(context))]))
            series += [f"{c.name} {number}" for number in c.series[rows]]
            owners += [c.name] * len(rows)
        # [units, effects, (future, unablated, *cells)]
        self._table, self._units = unit_means(np.stack(tables), series, owners)

    def excess(self, effect: str) -> Sample:
        """The unablated forecast's trait minus the true future's."""
        values = self._table[:, EFFECTS.index(effect)]
        return Sample.of(values[:, 1] - values[:, 0], self._units)

    def effects(self, ablation: Ablation) -> dict[str, Array]:
        """Effect -> its change [N] by unit."""
        changes = self._table[:, :, 2 + self._place[ablation]] - self._table[:, :, 1]
        return dict(zip(EFFECTS, changes.T, strict=True))

    def relative_error(self, ablation: Ablation) -> Sample:
        """The relative change of the scaled error."""
        values = self._table[:, EFFECTS.index("mase")]
        with np.errstate(all="ignore"):
            logs = np.log(values[:, 2 + self._place[ablation]]) - np.log(values[:, 1])
        return Sample.of(logs, self._units, logarithmic=True)

    def sample(self, changes: Array) -> Sample:
        """A sample of one quantity, from its values [N], or [D, N] under D draws."""
        return Sample(np.atleast_2d(changes)[:, :, None], self._units)


_Changes = Mapping[tuple[float, str, str], Array]


def _changes(sets: Sequence[HeadSet], measured: _Measured) -> _Changes:
    """(percent, which, effect) -> changes [D, N], one row per draw (one but for random sets)."""
    found: dict[tuple[float, str, str], list[Array]] = {}
    for x in sets:
        for effect, change in measured.effects(Ablation(x.heads)).items():
            found.setdefault((x.percent, x.which, effect), []).append(change)
    return {key: np.stack(values) for key, values in found.items()}


def _set_rows(sets: Sequence[HeadSet], changes: _Changes, measured: _Measured, seed: int) -> pd.DataFrame:
    rows = []
    heads = {x.percent: len(x.heads) for x in sets}
    order = {percent: place for place, percent in enumerate(heads)}
    for key in sorted(changes, key=lambda key: (order[key[0]], EFFECTS.index(key[2]))):
        (percent, which, effect), values = key, changes[key]
        row: dict[str, object] = {"percent": percent, "which": which, "effect": effect}
        row["heads"] = heads[percent]
        row |= measured.sample(values.mean(axis=0)).estimate(seed=seed).row("mean", count="units")
        if which == "random":
            means = [measured.sample(one).means()[0] for one in values]
            row |= {"draw_low": min(means), "draw_high": max(means)}
        else:
            paired = measured.sample(values - changes[percent, "random", effect])
            row |= paired.estimate(seed=seed).row("excess", limits="excess_")
        rows.append(row)
    return SET_EFFECTS.frame(rows)


def _head_rows(alone: Mapping[str, Ablation], measured: _Measured, seed: int) -> pd.DataFrame:
    columns: dict[str, object] = {"address": list(alone)}
    effects = [measured.effects(ablation) for ablation in alone.values()]
    for effect in EFFECTS if alone else ():
        values = np.stack([one[effect] for one in effects], axis=1)
        found = Sample.of(values).estimates(seed=seed)
        columns |= {**found.columns(effect), f"{effect}_p_holm": holm(found.p)}
    frame = HEAD_EFFECTS.checked(pd.DataFrame(columns))
    return frame.sort_values("parroting", kind="stable", ignore_index=True) if alone else frame


# --- samples of the claims -----------------------------------------------------------------------


def _samples(
    sets: Sequence[HeadSet], ladder: Sequence[HeadSet], changes: _Changes, measured: _Measured
) -> SetSamples:
    percents = list(dict.fromkeys(x.percent for x in sets))
    change, excess = {}, {}
    for which in ("sharp", "diffuse"):
        for effect in EFFECTS:
            own = [changes[percent, which, effect] for percent in percents]
            others = [changes[percent, "random", effect] for percent in percents]
            change[which, effect] = measured.sample(np.mean(own, axis=0))
            # draw i of all percentages is one draw
            excess[which, effect] = measured.sample(np.mean(np.subtract(own, others), axis=0))
    steps = [measured.effects(Ablation(x.heads)) for x in ladder]
    steps.insert(0, {effect: np.zeros_like(values) for effect, values in steps[0].items()})
    matched = {}
    for trait in TRAITS:
        random = [
            (changes[percent, "random", "mase"], changes[percent, "random", trait]) for percent in percents
        ]
        found = [equal_damage(steps, error, traits, trait) for error, traits in random]
        known = [one for one in found if one is not None]
        nothing = np.full_like(random[0][1], np.nan)
        matched[trait] = measured.sample(np.mean(known, axis=0) if known else nothing)
    middle = min(percents, key=lambda percent: abs(percent - _CLAIM_PERCENT))
    tested = [x for x in sets if x.percent == middle and x.which != "random"]
    errors = {x.which: measured.relative_error(Ablation(x.heads)) for x in tested}
    return SetSamples(change, excess, matched, errors, middle)


def equal_damage(
    steps: Sequence[Mapping[str, Array]], error: Array, change: Array, trait: str
) -> Array | None:
    """A trait's change without sharp heads minus its change without random heads, at equal loss of accuracy.

    steps : effects [N] of growing sets of sharp heads; the first set is empty
    error, change : changes of the error and of the trait without random heads, [D, N]

    Effects are interpolated between two sizes of the sharp set, with the weight at which the mean errors are
    equal. That weight is an estimate: if it moves, the trait moves along the slope between both sizes. Each
    value [D, N] is therefore the difference in the trait minus that slope times the difference in the error,
    whose mean is 0. None if random heads cost nothing, or more than every sharp set.
    """
    known = np.isfinite(change).all(axis=0) & np.isfinite(error).all(axis=0)
    known &= np.all([np.isfinite(step[trait]) & np.isfinite(step["mase"]) for step in steps], axis=0)
    if not known.any():
        return None
    target = error[:, known].mean()
    errors = np.array([step["mase"][known].mean() for step in steps])
    traits = np.array([step[trait][known].mean() for step in steps])
    beyond = np.flatnonzero(errors >= target)
    if target <= 0 or not len(beyond):
        return None
    upper = int(beyond[0])  # at least 1: the empty set costs nothing
    lower, width = upper - 1, errors[upper] - errors[upper - 1]
    weight, slope = (target - errors[lower]) / width, (traits[upper] - traits[lower]) / width
    sharp = {
        name: (1 - weight) * steps[lower][name] + weight * steps[upper][name] for name in ("mase", trait)
    }
    found = sharp[trait] - change - slope * (sharp["mase"] - error)
    return np.where(known, found, np.nan)
