"""How a user's own data are read and cut into windows; light, for the command line's checks."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, TypedDict

from tsprune.arguments import COUNT, shown, whole
from tsprune.data.windows import TEST_SHARE, parse_frequency
from tsprune.errors import TspruneError

MOST_WINDOWS = 5  # of a series, unless told otherwise


class DataOptions(TypedDict, total=False):
    """Keywords of `tsprune.data.from_frame` and its like; the fields of `OwnOptions`."""

    horizon: int | None
    freq: str | None
    season: int | None
    windows: int | None
    step: int | None
    context: int | None
    id_column: str | None
    time_column: str | None
    target: str | list[str] | tuple[str, ...] | None
    past_covariates: str | list[str] | tuple[str, ...] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnOptions:
    """How a user's data are read and cut; None takes the default.

    horizon : steps to forecast; default a season, if that is more than one step
    freq : pandas frequency such as "h", "15min" or "W"; default that of each series' times
    season : steps in a season; default that of the frequency, as in GIFT-Eval
    windows : per series; default enough to cover a tenth of it, 1 to 5
    step : steps between the windows of a series; default the horizon
    context : most steps of history; default all
    id_column, time_column : names of columns; default those that the field's conventions give
    target : names of the columns to forecast. Several are variates of one series
    past_covariates : names of columns that are read beside the target and not forecast, by models that read
        past covariates

    Raises TspruneError for a number that is not positive and whole, and for an unknown frequency.
    """

    horizon: int | None = None
    freq: str | None = None
    season: int | None = None
    windows: int | None = None
    step: int | None = None
    context: int | None = None
    id_column: str | None = None
    time_column: str | None = None
    target: str | list[str] | tuple[str, ...] | None = None
    past_covariates: str | list[str] | tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("horizon", "season", "windows", "step", "context"):
            if (value := getattr(self, name)) is not None:
                whole(value, f"the {name}", most=COUNT)
        if self.freq is not None:
            parse_frequency(self.freq)
        for column in (self.id_column, self.time_column, *self.targets, *self.covariates):
            if not (column is None or isinstance(column, str)):
                raise TspruneError(f"a column's name must be text, not {shown(column)}")
        if both := set(self.targets) & set(self.covariates):
            raise TspruneError(f"column {min(both)} is named as a target and as a past covariate")

    @property
    def targets(self) -> tuple[str, ...]:
        """The named columns to forecast."""
        return _names(self.target)

    @property
    def covariates(self) -> tuple[str, ...]:
        """The named columns of past covariates."""
        return _names(self.past_covariates)

    def horizon_of(self, freq: str, season: int) -> int:
        """The horizon that was given, or a season of the frequency; TspruneError if it has none."""
        if self.horizon is None and season == 1:
            raise TspruneError(f"the frequency {freq} has no season to forecast; give --horizon")
        return self.horizon or season

    def windows_of(self, length: int, horizon: int) -> int:
        """The number of windows of a series of `length` steps."""
        if self.windows is not None:
            return self.windows
        step = self.step or horizon
        fitting = (length - 1 - horizon) // step + 1
        return max(1, min(MOST_WINDOWS, math.ceil(TEST_SHARE * length / step), fitting))


def _names(columns: Any) -> tuple[str, ...]:
    """One name or several, not checked."""
    if columns is None:
        return ()
    return tuple(columns) if isinstance(columns, list | tuple) else (columns,)
