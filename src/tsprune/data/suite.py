"""Suite: forecasting windows, grouped into configurations as GIFT-Eval does."""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import hashlib
import html
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tsprune.arguments import checked
from tsprune.errors import TspruneError
from tsprune.schema import Column, Schema
from tsprune.text import count

if TYPE_CHECKING:
    import pandas as pd

    from tsprune.data.own.steps import TimeStep

SUITE = Schema(
    "suite",
    Column("configuration", "<dataset>/<frequency>/<term>", dtype="text"),
    Column("domain", "of the dataset", dtype="text"),
    Column("horizon", "of a forecast", "steps", dtype="count"),
    Column("season", "length of a season", "steps", dtype="count"),
    Column("windows", "number of windows", dtype="count"),
    Column("series", "number of series that the windows are cut from", dtype="count"),
    Column("num_variates", "of the dataset", dtype="count"),
    Column("num_covariates", "past covariates of a window", dtype="count", optional=True),
    Column("shortest", "shortest history before a window", "steps", dtype="count"),
    Column("longest", "longest history before a window", "steps", dtype="count"),
    Column(
        "gaps", "steps of the series without a row, where rows have times", "steps", "count", optional=True
    ),
)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Origins:
    """Ids and times of a configuration's windows.

    ids : names of the series, one per window
    starts : datetime64[us] [N], time of the first step of each context; NaT if unknown
    steps : between the times of each window
    gaps : int64 [N], steps of the window's whole series that had no row
    """

    ids: tuple[str, ...]
    starts: NDArray[np.datetime64]
    steps: tuple[TimeStep, ...]
    gaps: NDArray[np.int64]

    def times(self, window: int, first: int, count: int) -> NDArray[np.datetime64] | None:
        """datetime64[us] [count], from `first` steps after the start of a context on; None if unknown."""
        start = self.starts[window]
        if np.isnat(start):
            return None
        steps = np.arange(first, first + count, dtype=np.int64)
        return self.steps[window].at(int(start.astype(np.int64)), steps).astype("datetime64[us]")

    def select(self, rows: NDArray[np.int64]) -> Origins:
        """Those of the windows `rows`."""
        ids, steps = tuple(self.ids[int(row)] for row in rows), tuple(self.steps[int(row)] for row in rows)
        return Origins(ids, self.starts[rows], steps, self.gaps[rows])


def rows_by(numbers: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The places of each number, ascending, in the order of their first ones."""
    order = np.argsort(numbers, kind="stable")
    edges = np.flatnonzero(np.diff(numbers[order])) + 1
    return sorted(np.split(order, edges), key=lambda rows: int(rows[0])) if len(order) else []


@dataclasses.dataclass(frozen=True, eq=False, repr=False)  # hashed by identity: results are kept with it
class Configuration:
    """One row of a benchmark: one dataset at one frequency and horizon, cut into N windows.

    name : "<dataset>/<freq>/<term>", e.g. "ett1/H/short"
    freq : pandas-style frequency as GIFT-Eval names it ("H", "15T", "W", ...)
    horizon : steps to forecast (H)
    season : steps in a season, for MASE and Seasonal Naive
    contexts : N histories, float32, of various lengths; NaN or infinity marks a missing value
    targets : float32 [N, H], the values to forecast; NaN or infinity marks an unknown one
    series : int64 [N], the series of each window (windows of one series are not independent)
    groups : int64 [N], windows of one number are the variates of one multivariate series at the same times;
        models that read several variates together forecast them so. None: every window stands alone
    num_variates : number of variates of the dataset (1 unless it is multivariate)
    domain : GIFT-Eval's domain of the dataset, "" if unknown
    origins : ids and times of the windows, of a user's own data; None if unknown
    covariates : N arrays, float32 [C, T] as long as the contexts: series that are read beside them and not
        forecast, by models that read past covariates. Windows of one group have the same. None: none
    """

    name: str
    freq: str
    horizon: int
    season: int
    contexts: Sequence[NDArray[np.float32]]
    targets: NDArray[np.float32]
    series: NDArray[np.int64]
    num_variates: int = 1
    domain: str = ""
    origins: Origins | None = None
    groups: NDArray[np.int64] | None = None
    covariates: Sequence[NDArray[np.float32]] | None = None

    def __len__(self) -> int:
        return len(self.contexts)

    def __repr__(self) -> str:
        series = len(np.unique(self.series))
        return f"<Configuration {self.name}: {len(self)} windows of {series} series, horizon {self.horizon}>"

    def select(self, keep: NDArray[np.bool_]) -> Configuration:
        """The configuration with only the windows where `keep` [N] is true."""
        rows = np.flatnonzero(keep)
        return dataclasses.replace(
            self,
            contexts=[self.contexts[int(row)] for row in rows],
            targets=self.targets[rows],
            series=self.series[rows],
            origins=None if self.origins is None else self.origins.select(rows),
            groups=None if self.groups is None else self.groups[rows],
            covariates=None if self.covariates is None else [self.covariates[int(row)] for row in rows],
        )

    @property
    def num_covariates(self) -> int:
        """Past covariates of a window."""
        return max(map(len, self.covariates), default=0) if self.covariates is not None else 0

    @property
    def together(self) -> list[NDArray[np.int64]]:
        """The rows of each group, in the order of their first ones; single rows without groups."""
        if self.groups is None:
            return list(np.arange(len(self))[:, None])
        return rows_by(self.groups)

    @property
    def entities(self) -> NDArray[np.int64]:
        """int64 [N], the multivariate series of each window; `series` without groups.

        Series that share a group are variates of one; its number is the lowest of theirs.
        """
        if self.groups is None:
            return self.series
        owner = {int(number): int(number) for number in self.series}
        for rows in self.together:
            first = min(owner[int(number)] for number in self.series[rows])
            owner |= dict.fromkeys(self.series[rows].tolist(), first)
        return np.array([owner[int(number)] for number in self.series], dtype=np.int64)


@dataclasses.dataclass(frozen=True, repr=False)
class Suite:
    """A named collection of configurations, and a list of all that was left out of it.

    skipped : (configuration or series, reason) pairs
    about : how a user's table was understood, in a line
    """

    name: str
    configurations: tuple[Configuration, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    about: str = ""

    def __len__(self) -> int:
        """Number of windows over all configurations."""
        return sum(len(configuration) for configuration in self.configurations)

    def __repr__(self) -> str:
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        configurations = count(len(self.configurations), "configuration")
        return f"<Suite {self.name}: {configurations}, {count(len(self), 'window')}{skipped}>"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self))}</p>{self.describe().to_html(index=False, border=0)}"

    def describe(self) -> pd.DataFrame:
        """One row per configuration, with the columns of `SUITE`."""
        rows = []
        for c in self.configurations:
            lengths = [len(context) for context in c.contexts] or [0]
            row = {name: getattr(c, name) for name in ("domain", "horizon", "season", "num_variates")}
            row |= {"configuration": c.name, "windows": len(c), "series": len(np.unique(c.series))}
            if c.num_covariates:
                row["num_covariates"] = c.num_covariates
            if c.origins is not None:
                row["gaps"] = int(c.origins.gaps[np.unique(c.series, return_index=True)[1]].sum())
            rows.append(row | {"shortest": min(lengths), "longest": max(lengths)})
        return SUITE.frame(rows)

    def require_windows(self) -> None:
        """Raises TspruneError, with the last reason for leaving something out, without windows."""
        if len(self) == 0:
            why = "".join(f" ({name}: {reason})" for name, reason in self.skipped[-1:])
            raise TspruneError(f"the suite {self.name} has no windows{why}")

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over names, horizons, seasons, contexts, targets, groups and covariates of every window."""
        digest = hashlib.sha256()
        for c in self.configurations:
            digest.update(f"{c.name}|{c.freq}|{c.horizon}|{c.season}|{len(c)}".encode())
            for context in c.contexts:
                digest.update(f"{len(context)}".encode())
                digest.update(np.ascontiguousarray(context).tobytes())
            digest.update(np.ascontiguousarray(c.targets).tobytes())
            digest.update(np.ascontiguousarray(c.series).tobytes())
            if c.groups is not None:
                digest.update(np.ascontiguousarray(c.groups).tobytes())
            for past in c.covariates or ():
                digest.update(f"{past.shape}".encode())
                digest.update(np.ascontiguousarray(past).tobytes())
        return digest.hexdigest()

    def only(self, patterns: Sequence[str]) -> Suite:
        """The suite with only the configurations whose names match one of the glob patterns.

        Raises TspruneError if a pattern matches none.
        """
        names = [c.name for c in self.configurations]
        for pattern in patterns:
            if not fnmatch.filter(names, pattern):
                near = difflib.get_close_matches(pattern, names) or names[:3]
                raise TspruneError(f"no configuration {pattern!r} in {self.name}; try: {', '.join(near)}")
        return self.filter(lambda c: any(fnmatch.fnmatchcase(c.name, pattern) for pattern in patterns))

    @checked
    def sample(self, count: int, seed: int = 0) -> Suite:
        """The suite with `count` windows (or all, if it has fewer) drawn at random over all configurations.

        Each configuration keeps its share of the windows, and one at least while `count` allows it. The
        variates of a multivariate window stay together: there are fewer windows if the next one exceeds the
        share, and more if the first one does.

        Raises TspruneError for a count below 1.
        """
        sizes = [len(c) for c in self.configurations]
        rng = np.random.default_rng(seed)
        kept = []
        for c, quota in zip(self.configurations, _quotas(sizes, count), strict=True):
            chosen = _drawn(c.together, quota, rng)
            kept += [c.select(np.isin(np.arange(len(c)), chosen))] if quota else []
        return dataclasses.replace(self, configurations=tuple(kept))

    def to_frame(self) -> pd.DataFrame:
        """All series of the windows as a long table: configuration, unique_id, ds, y.

        A row per step of a series, from its first context's start to its last target. Times are those of the
        user's table, or steps from 0 on if they are unknown; `tsprune.data.from_frame` reads the table.
        """
        from tsprune.data.own.long_table import long_table

        return long_table(self)

    def univariate(self) -> Suite:
        """The suite with every variate as a series of its own, without covariates, for every model."""
        split = (dataclasses.replace(c, groups=None, covariates=None) for c in self.configurations)
        return dataclasses.replace(self, configurations=tuple(split))

    @property
    def multivariate(self) -> bool:
        """Whether a window has several variates."""
        return any(len(rows) > 1 for c in self.configurations for rows in c.together)

    @property
    def has_covariates(self) -> bool:
        """Whether a window has past covariates."""
        return any(c.num_covariates for c in self.configurations)

    def filter(self, predicate: Callable[[Configuration], bool]) -> Suite:
        """The suite with only the configurations for which `predicate` is true."""
        kept = tuple(c for c in self.configurations if predicate(c))
        return dataclasses.replace(self, configurations=kept)


def _drawn(groups: Sequence[NDArray[np.int64]], quota: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows of groups in random order, as many as fit into `quota`, and of one group at least."""
    order = [groups[int(place)] for place in rng.permutation(len(groups))]
    fitting = int(np.searchsorted(np.cumsum([len(rows) for rows in order]), quota, side="right"))
    return np.concatenate([np.zeros(0, dtype=np.int64), *order[: max(1, fitting)]])


def _quotas(sizes: Sequence[int], count: int) -> list[int]:
    """Shares of `count` in proportion to `sizes`, at least 1 each while `count` lasts, never above a size."""
    quotas = [min(size, 1) for size in sizes]
    if sum(quotas) >= count:
        places = np.flatnonzero(quotas)
        chosen = places[np.linspace(0, len(places) - 1, count).round().astype(int)]
        return [int(index in chosen) for index in range(len(sizes))]
    while sum(quotas) < min(count, sum(sizes)):  # one more where the share is farthest below its due
        lag = [
            size * count / sum(sizes) - quota if quota < size else -np.inf
            for size, quota in zip(sizes, quotas, strict=True)
        ]
        quotas[int(np.argmax(lag))] += 1
    return quotas
