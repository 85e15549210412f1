"""Which heads do it: forecasts without the sharpest heads, the most diffuse ones, and random ones.

The claim (arXiv 2602.01605, its third mechanism): sharp heads carry parroting and seasonality, diffuse
ones can go. Sharp is defined by attention on data (`tsprune.explain.attention`); the stable rank predicts
it without data, and how well is measured here as well.

1. Sets of equal size: the sharpest heads, the most diffuse ones, and as many random ones of the same
   sublayers.
2. Sets of equal damage: a trait also falls where the forecast is ruined. So the change without sharp heads
   is read off at the error that random heads of each share cost: between two sizes of the sharp set, by
   linear interpolation (`_equal_damage`).
3. Each claim is a list of statements about levels and differences, all of which must be shown (`CLAIMS`).
   Configurations are the units, and random draws are crossed with them, so that an interval holds the luck
   of both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsprune.anatomy import Component
from tsprune.arguments import checked
from tsprune.data.suite import Configuration, Suite
from tsprune.errors import TspruneError
from tsprune.evaluation import prepare
from tsprune.evaluation.sampling import PER_CONFIGURATION, sampled
from tsprune.explain.forecast_traits import dominant_period
from tsprune.explain.suite_traits import TRAITS, scaled_errors, traits_on
from tsprune.hooks.ablation import Ablation
from tsprune.models.forecaster import Forecaster
from tsprune.progress import any_stage
from tsprune.statistics import Estimate, Sample, unit_means
from tsprune.sweeps.engine import run
from tsprune.sweeps.sweep_result import CLEAN, SweepResult

PERCENTS = (5, 10, 20, 30, 50)
DRAWS = 5
# a window of a model that samples is as many rows as it has paths, and the records of a clean pass hold them
# all: within these bounds an explanation stays well below 3 GB
BATCH_SIZE = 32
MEMORY = 2**29
SETS = ("sharp", "diffuse", "random")
EFFECTS = ("mase", *TRAITS)
# shares of the sharpest heads between which equal damage is looked for
LADDER = (1, 2, 5, 10, 20, 30, 50, 70)
# the share at which levels are tested
CLAIM_PERCENT = 30

Array = NDArray[np.float64]


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
    """What forecasts lose without heads, with 95 % intervals over configurations (`tsprune.statistics`).

    sets : one row a percentage, set (`SETS`; random: mean of the draws) and effect (`EFFECTS`): percent,
        which, heads, effect, mean, low, high, units; for random ones draw_low and draw_high, the lowest
        and highest mean of a draw; for sharp and diffuse ones excess, excess_low, excess_high: minus the
        random sets' (paired). `mase` is the change of the window's scaled error, the traits' the change
        of the trait itself
    heads : one row a head, its effect on each of `EFFECTS` alone (`_low`, `_high`), lowest parroting first
    clean : of the unablated forecast: the excess of each trait over the true future's
    samples : what the claims are tested on; see `tsprune.explain.mechanism_claims`
    """

    sets: pd.DataFrame
    heads: pd.DataFrame
    clean: Mapping[str, Estimate]
    samples: SetSamples | None = None


@dataclasses.dataclass(frozen=True)
class SetSamples:
    """Effects of sets of heads as samples of one quantity, averaged over the percentages.

    change : (which, effect) -> change without the sharp or the diffuse heads
    excess : (which, effect) -> that minus the change without as many random ones
    matched : trait -> change without the sharp heads minus that without random ones, at equal damage; no
        units where no sets of equal damage were found
    error : which -> relative change of the scaled error without `percent` of the heads
    percent : of `error`
    """

    change: Mapping[tuple[str, str], Sample]
    excess: Mapping[tuple[str, str], Sample]
    matched: Mapping[str, Sample]
    error: Mapping[str, Sample]
    percent: int


@checked
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
    ladder = [x for x in head_sets(ranked, percents=LADDER, draws=0, seed=seed) if x.which == "sharp"]
    chosen = sampled(suite, model, per_configuration)
    alone = {head: Ablation((head,)) for head in ranked} if single else {}
    together = (Ablation(x.heads) for x in (*sets, *ladder))
    cells = list(dict.fromkeys([*together, *alone.values()]))
    result = run(
        model,
        chosen,
        cells,
        batch_size=BATCH_SIZE,
        keep={CLEAN, *cells},
        progress=any_stage(progress),
        memory=MEMORY,
    )
    measured = _Measured(result, chosen.configurations, cells, model.context_length)
    return HeadEffects(
        _set_rows(sets, measured, seed),
        _head_rows(alone, measured, seed),
        {name: measured.excess(name).estimate(seed=seed) for name in TRAITS},
        _samples(sets, ladder, measured),
    )


# --- what was measured ---------------------------------------------------------------------------


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
            windows = zip(rows, medians, strict=True)
            tables += [_of_window(c, int(row), median, cut) for row, median in windows]
            series += [f"{c.name} {number}" for number in c.series[rows]]
            owners += [c.name] * len(rows)
        # [units, effects, future and unablated and cells]
        self._table, self._units = unit_means(np.stack(tables), series, owners)

    def __len__(self) -> int:
        """The number of units."""
        return len(self._units)

    def excess(self, effect: str) -> Sample:
        """The unablated forecast's trait minus the true future's."""
        of = self._table[:, EFFECTS.index(effect)]
        return Sample.of(of[:, 1] - of[:, 0], self._units)

    def effects(self, ablation: Ablation) -> Mapping[str, Array]:
        """Effect -> its change [N] by unit."""
        changes = self._table[:, :, 2 + self._place[ablation]] - self._table[:, :, 1]
        return dict(zip(EFFECTS, changes.T, strict=True))

    def relative_error(self, ablation: Ablation) -> Sample:
        """The relative change of the scaled error."""
        of = self._table[:, EFFECTS.index("mase")]
        with np.errstate(all="ignore"):
            logs = np.log(of[:, 2 + self._place[ablation]]) - np.log(of[:, 1])
        return Sample.of(logs, self._units, logarithmic=True)

    def sample(self, changes: Sequence[Array]) -> Sample:
        """A sample of one quantity under D draws, from its values [N] under each."""
        return Sample(np.stack(changes)[:, :, None], self._units)


def _of_window(c: Configuration, row: int, medians: NDArray[np.float32], cut: int) -> Array:
    """`EFFECTS` of one window's future and forecasts [M, H], [effects, 1 + M]."""
    context, target = c.contexts[row][-cut:], c.targets[row]
    values = np.concatenate([target[None], medians])
    scaled = scaled_errors(values, target, prepare(c).season_errors[row])
    return np.vstack([scaled, traits_on(values, context, dominant_period(context))])


# --- tables --------------------------------------------------------------------------------------


def _changes(
    sets: Sequence[HeadSet], measured: _Measured, percent: int, effect: str
) -> dict[str, list[Array]]:
    """Set -> changes [N] of an effect, one a draw (a single one but for random sets)."""
    of = {which: [x for x in sets if (x.percent, x.which) == (percent, which)] for which in SETS}
    return {
        which: [measured.effects(Ablation(x.heads))[effect] for x in members]
        for which, members in of.items()
        if members
    }


def _set_rows(sets: Sequence[HeadSet], measured: _Measured, seed: int) -> pd.DataFrame:
    rows = []
    heads = {x.percent: len(x.heads) for x in sets}
    for percent in dict.fromkeys(x.percent for x in sets):
        for effect in EFFECTS:
            changes = _changes(sets, measured, percent, effect)
            for which, values in changes.items():
                found = measured.sample([np.mean(values, axis=0)]).estimate(seed=seed)
                row = {"percent": percent, "which": which, "heads": heads[percent], "effect": effect}
                row |= {"mean": found.value, "low": found.low, "high": found.high, "units": found.count}
                if which == "random":
                    means = [measured.sample([one]).means()[0] for one in values]
                    row |= {"draw_low": min(means), "draw_high": max(means)}
                elif "random" in changes:
                    pairs = [values[0] - one for one in changes["random"]]
                    paired = measured.sample(pairs).estimate(seed=seed)
                    row |= {"excess": paired.value, "excess_low": paired.low, "excess_high": paired.high}
                rows.append(row)
    return pd.DataFrame(rows)


def _head_rows(alone: Mapping[Component, Ablation], measured: _Measured, seed: int) -> pd.DataFrame:
    columns: dict[str, object] = {"address": [head.address for head in alone]}
    for effect in EFFECTS if alone else ():
        values = np.stack([measured.effects(ablation)[effect] for ablation in alone.values()], axis=1)
        found = Sample.of(values).estimates(seed=seed)
        columns |= {effect: found.value, f"{effect}_low": found.low, f"{effect}_high": found.high}
    frame = pd.DataFrame(columns)
    return frame.sort_values("parroting", kind="stable", ignore_index=True) if len(frame) else frame


# --- samples of the claims -----------------------------------------------------------------------


def _samples(sets: Sequence[HeadSet], ladder: Sequence[HeadSet], measured: _Measured) -> SetSamples | None:
    """None if no random sets were drawn."""
    percents = list(dict.fromkeys(x.percent for x in sets))
    by = {
        (percent, effect): _changes(sets, measured, percent, effect)
        for percent in percents
        for effect in EFFECTS
    }
    if not all("random" in changes for changes in by.values()):
        return None
    change, excess = {}, {}
    for which in ("sharp", "diffuse"):
        for effect in EFFECTS:
            own = [by[percent, effect][which][0] for percent in percents]
            change[which, effect] = measured.sample([np.mean(own, axis=0)])
            excess[which, effect] = _over_random(
                [(by[percent, effect][which][0], by[percent, effect]["random"]) for percent in percents],
                measured,
            )
    steps = _ladder(ladder, measured)
    matched = {
        trait: measured.sample(
            _matched(steps, [(by[p, "mase"]["random"], by[p, trait]["random"]) for p in percents], trait)
        )
        for trait in TRAITS
    }
    middle = min(percents, key=lambda percent: abs(percent - CLAIM_PERCENT))
    error = {
        x.which: measured.relative_error(Ablation(x.heads))
        for x in sets
        if x.percent == middle and x.which != "random"
    }
    return SetSamples(change, excess, matched, error, middle)


def _over_random(pairs: Sequence[tuple[Array, Sequence[Array]]], measured: _Measured) -> Sample:
    """The excess over random sets, averaged over percentages: draw i of each is one draw of all."""
    draws = min(len(random) for _, random in pairs)
    return measured.sample(
        [np.mean([own - random[draw] for own, random in pairs], axis=0) for draw in range(draws)]
    )


Step = Mapping[str, Array]


def _ladder(ladder: Sequence[HeadSet], measured: _Measured) -> list[Step]:
    """Effects [N] of growing sets of the sharpest heads, the first of which is empty."""
    nothing = {effect: np.zeros(len(measured)) for effect in EFFECTS}
    return [nothing, *(measured.effects(Ablation(x.heads)) for x in ladder)]


def _matched(
    steps: Sequence[Step], random: Sequence[tuple[Sequence[Array], Sequence[Array]]], trait: str
) -> list[Array]:
    """`_equal_damage` averaged over the percentages at which there are sets of equal damage, D times [N].

    random : (changes of the error, changes of the trait) of the draws of each percentage, [N] each

    No units count (NaN) if there is no such percentage.
    """
    found = [_equal_damage(steps, np.stack(loss), np.stack(change), trait) for loss, change in random]
    known = [one for one in found if one is not None]
    if not known:
        return [np.full(len(one), np.nan) for one in random[0][0]]
    return list(np.mean(known, axis=0))


def _equal_damage(steps: Sequence[Step], loss: Array, change: Array, trait: str) -> Array | None:
    """A trait's change without sharp heads minus that without random ones, where both lose as much.

    steps : effects of growing sets of sharp heads
    loss, change : of the error and of the trait without random heads, [D, N]

    Between two sizes of the sharp set effects are interpolated, with the weight at which the mean losses
    are equal. That weight is estimated, too: where it moves, the trait moves along the slope between both
    sizes. So each value [D, N] is the difference in the trait minus that slope times the difference in the
    loss; the latter's mean is 0. None if the random heads cost nothing, or more than any sharp set.
    """
    known = np.isfinite(change).all(axis=0) & np.isfinite(loss).all(axis=0)
    known &= np.all([np.isfinite(step[trait]) & np.isfinite(step["mase"]) for step in steps], axis=0)
    if not known.any():
        return None
    target = loss[:, known].mean()
    losses = np.array([step["mase"][known].mean() for step in steps])
    traits = np.array([step[trait][known].mean() for step in steps])
    beyond = np.flatnonzero(losses >= target)
    if target <= 0 or not len(beyond):
        return None
    upper = int(beyond[0])  # the empty set loses nothing, so there is one below
    lower, width = upper - 1, losses[upper] - losses[upper - 1]
    weight, slope = (target - losses[lower]) / width, (traits[upper] - traits[lower]) / width
    sharp = {
        name: (1 - weight) * steps[lower][name] + weight * steps[upper][name] for name in ("mase", trait)
    }
    found = sharp[trait] - change - slope * (sharp["mase"] - loss)
    return np.where(known, found, np.nan)
