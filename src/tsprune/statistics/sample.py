"""Samples: quantities measured on units, and the only way from data to an interval.

1. A unit was sampled independently: a configuration (dataset and frequency). Its windows and series only make
   its value more precise, so their noise is part of the spread of the units' values. In a single
   configuration the series are the units; a single series has no interval.
2. An estimate is a mean over units. Relative changes are means of log ratios, so that a ratio and its
   inverse are treated alike; they are reported as exp(mean) - 1.
3. Five units and more: a studentised bootstrap over units (`tsprune.statistics.bootstrap`), whose
   coverage holds for skewed values, too. Fewer: Student's t.
4. A p-value is the smallest level at which the interval excludes the null hypothesis, so interval and p-value
   never disagree.

A two-level bootstrap would draw series within configurations as well and count their noise twice: its
intervals are too wide where series differ more than configurations do, and its percentiles too narrow for few
configurations (`benchmarks/coverage.py`).

Source: Davison & Hinkley (1997), Bootstrap Methods and their Application, sections 3.8 (drawing the highest
level only has the right variance) and 5.2 (studentised limits).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tsprune.statistics.bootstrap import DRAWS, inference
from tsprune.statistics.estimate import LEVEL, Array, Estimate, Estimates

_COLUMNS = 256  # quantities whose draws are held in memory together


@dataclasses.dataclass(frozen=True)
class Sample:
    """M quantities on N units, under D random draws of an experiment (sets of heads, say).

    values : [D, N, M]; a unit with NaN does not count for that quantity
    units : names of the N units; differences pair them by name
    logarithmic : whether values are log ratios, estimated as relative changes
    """

    values: Array
    units: tuple[str, ...]
    logarithmic: bool = False

    @classmethod
    def of(
        cls, values: ArrayLike, units: Sequence[str] | None = None, *, logarithmic: bool = False
    ) -> Sample:
        """A sample of values [N] or [N, M]."""
        found = np.asarray(values, np.float64)
        table = found[None, :, None] if found.ndim == 1 else found[None]
        names = map(str, range(table.shape[1])) if units is None else units
        return cls(table, tuple(names), logarithmic)

    def __len__(self) -> int:
        return int(self.values.shape[2])

    def means(self) -> Array:
        """Means over draws and units, [M], on the scale of `values`; NaN without any value."""
        known = np.isfinite(self.values).all(axis=0)
        with np.errstate(invalid="ignore"):
            total = np.where(known, self.values, 0.0).mean(axis=0).sum(axis=0)
            return np.asarray(total / known.sum(axis=0), np.float64)

    def estimates(self, *, level: float = LEVEL, null: float = 0.0, seed: int = 0) -> Estimates:
        """Estimates of all quantities.

        level : of the intervals
        null : the null hypothesis of the p-values, on the reported scale (0.06: a change of 6 %)
        seed : of the bootstrap where its draws cannot be enumerated (nine units and more)
        """
        shift = self._on_scale(null)
        parts = [
            inference(self.values[:, :, first : first + _COLUMNS] - shift, level=level, seed=seed)
            for first in range(0, len(self), _COLUMNS)
        ]
        _, low, high, p, count = (
            np.concatenate([part[place] for part in parts]) if parts else np.empty(0) for place in range(5)
        )
        # means of the unshifted values: shifting back would leave a rounding error
        value, low, high = self.means(), low + shift, high + shift
        if self.logarithmic:
            with np.errstate(over="ignore"):
                value, low, high = np.expm1(value), np.expm1(low), np.expm1(high)
        return Estimates(value, low, high, p, count.astype(np.int64))

    def estimate(
        self, column: int = 0, *, level: float = LEVEL, null: float = 0.0, seed: int = 0
    ) -> Estimate:
        """The estimate of one quantity; arguments as of `estimates`."""
        return self.columns([column]).estimates(level=level, null=null, seed=seed).at(0)

    def p_value(self, *, null: float = 0.0, seed: int = 0, draws: int = DRAWS) -> float:
        """The p-value of the only quantity, without the cost of limits; arguments as of `estimates`."""
        values = self.values - self._on_scale(null)
        return float(inference(values, level=None, seed=seed, draws=draws)[3][0])

    def _on_scale(self, reported: float) -> float:
        """A number on the reported scale, converted to the scale of `values`."""
        return float(np.log1p(reported)) if self.logarithmic else reported

    def columns(self, chosen: Sequence[int]) -> Sample:
        """Some of the quantities."""
        return dataclasses.replace(self, values=self.values[:, :, list(chosen)])

    def as_draws(self) -> Sample:
        """The quantities as D draws of one quantity, if they are a random sample themselves.

        The interval then covers the noise of the draws as well as that of the units.
        """
        values = np.moveaxis(self.values, 2, 0).reshape(-1, len(self.units), 1)
        return dataclasses.replace(self, values=values)

    def median(self) -> Sample:
        """The median over the quantities, as one quantity.

        Units have the jackknife's pseudo-values of the median (Davison & Hinkley, 2.7.3), since it is not a
        mean over them.
        """
        return Sample.of(
            pseudo_values(self.values[0], lambda means: np.median(means, axis=-1, keepdims=True)),
            self.units,
            logarithmic=self.logarithmic,
        )

    def minus(self, other: Sample) -> Sample:
        """Differences, quantity by quantity, on the units that both have.

        Differences of relative changes are relative, too: (1 + a) / (1 + b) - 1.
        """
        shared = [unit for unit in self.units if unit in set(other.units)]
        mine = self.values[:, [self.units.index(unit) for unit in shared]]
        theirs = other.values[:, [other.units.index(unit) for unit in shared]]
        with np.errstate(invalid="ignore"):  # infinite on both sides
            return dataclasses.replace(self, values=mine - theirs, units=tuple(shared))


def joined_columns(parts: Mapping[tuple[int, ...], Sample]) -> Sample:
    """One sample of quantities measured apart; a unit that a quantity lacks does not count for it.

    parts : places of the quantities in the result -> their sample; at least one
    """
    samples = list(parts.values())
    units = tuple(dict.fromkeys(unit for one in samples for unit in one.units))
    values = np.full((len(samples[0].values), len(units), sum(map(len, parts))), np.nan)
    for places, one in parts.items():
        rows = [units.index(unit) for unit in one.units]
        values[:, np.array(rows, int)[:, None], np.array(places, int)] = one.values
    return Sample(values, units, samples[0].logarithmic)


def pseudo_values(values: Array, statistic: Callable[[Array], Array]) -> Array:
    """The jackknife's pseudo-values of a statistic of means over units, [N, K].

    values : [N, M]
    statistic : from means [..., M] to [..., K]

    They are N s - (N - 1) s(i), s(i) being the statistic without unit i, centred: their mean is the statistic
    of all units. Fewer than two units have no spread: N rows of the statistic.
    """
    count = len(values)
    whole = statistic(values.mean(axis=0) if count else np.full(values.shape[1:], np.nan))
    if count < 2:
        return np.tile(whole, (count, 1))
    without = statistic((values.sum(axis=0) - values) / (count - 1))
    return np.asarray(whole - (count - 1) * (without - without.mean(axis=0)))


def unit_means(
    values: ArrayLike, series: ArrayLike, configurations: ArrayLike | None = None
) -> tuple[Array, tuple[str, ...]]:
    """Means of windows' values by unit: of each series, then over the series of a configuration.

    values : [W] or [W, M], NaN where unknown
    series : [W], the series of each window; different configurations have different ones
    configurations : [W], its configuration; None or all the same: the series are the units

    Returns ([N] or [N, M], N names), NaN where a unit has no value.
    """
    means, names = _group_means(np.asarray(values, np.float64), np.asarray(series))
    if configurations is not None:
        belongs = dict(zip(np.asarray(series).tolist(), np.asarray(configurations).tolist(), strict=True))
        groups = np.array([belongs[owner] for owner in names.tolist()])
        if len(np.unique(groups)) > 1:
            means, names = _group_means(means, groups)
    return means, tuple(str(name) for name in names)


def _group_means(values: Array, groups: NDArray[np.generic]) -> tuple[Array, NDArray[np.generic]]:
    """Means over the rows of each group that have a value, and the groups in ascending order."""
    names, owner = np.unique(groups, return_inverse=True)
    sums, counts = (np.zeros((len(names), *values.shape[1:])) for _ in range(2))
    np.add.at(sums, owner, np.where(np.isfinite(values), values, 0.0))
    np.add.at(counts, owner, np.isfinite(values))
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0), names
