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

from tsprune.errors import TspruneError
from tsprune.schema import Column, Schema

if TYPE_CHECKING:
    import pandas as pd

SUITE = Schema(
    "suite",
    Column("configuration", "<dataset>/<frequency>/<term>", dtype="text"),
    Column("domain", "of the dataset", dtype="text"),
    Column("horizon", "of a forecast", "steps", dtype="count"),
    Column("season", "length of a season", "steps", dtype="count"),
    Column("windows", "number of windows", dtype="count"),
    Column("series", "number of series that the windows are cut from", dtype="count"),
    Column("num_variates", "of the dataset", dtype="count"),
    Column("shortest", "shortest history before a window", "steps", dtype="count"),
    Column("longest", "longest history before a window", "steps", dtype="count"),
)


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
    num_variates : number of variates of the dataset (1 unless it is multivariate)
    domain : GIFT-Eval's domain of the dataset, "" if unknown
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
        )


@dataclasses.dataclass(frozen=True, repr=False)
class Suite:
    """A named collection of configurations, and a list of all that was left out of it.

    skipped : (configuration or series, reason) pairs
    """

    name: str
    configurations: tuple[Configuration, ...]
    skipped: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        """Number of windows over all configurations."""
        return sum(len(configuration) for configuration in self.configurations)

    def __repr__(self) -> str:
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return f"<Suite {self.name}: {len(self.configurations)} configurations, {len(self)} windows{skipped}>"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self))}</p>{self.describe().to_html(index=False, border=0)}"

    def describe(self) -> pd.DataFrame:
        """One row per configuration, with the columns of `SUITE`."""
        rows = []
        for c in self.configurations:
            lengths = [len(context) for context in c.contexts] or [0]
            row = {name: getattr(c, name) for name in ("domain", "horizon", "season", "num_variates")}
            row |= {"configuration": c.name, "windows": len(c), "series": len(np.unique(c.series))}
            rows.append(row | {"shortest": min(lengths), "longest": max(lengths)})
        return SUITE.frame(rows)

    def require_windows(self) -> None:
        """Raises TspruneError, with the last reason for leaving something out, without windows."""
        if len(self) == 0:
            why = "".join(f" ({name}: {reason})" for name, reason in self.skipped[-1:])
            raise TspruneError(f"the suite {self.name} has no windows{why}")

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over names, horizons, seasons, contexts and targets of every window."""
        digest = hashlib.sha256()
        for c in self.configurations:
            digest.update(f"{c.name}|{c.freq}|{c.horizon}|{c.season}|{len(c)}".encode())
            for context in c.contexts:
                digest.update(f"{len(context)}".encode())
                digest.update(np.ascontiguousarray(context).tobytes())
            digest.update(np.ascontiguousarray(c.targets).tobytes())
            digest.update(np.ascontiguousarray(c.series).tobytes())
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

    def filter(self, predicate: Callable[[Configuration], bool]) -> Suite:
        """The suite with only the configurations for which `predicate` is true."""
        kept = tuple(c for c in self.configurations if predicate(c))
        return dataclasses.replace(self, configurations=kept)
