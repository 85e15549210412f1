"""Forecasts of a long table of series, as `predict_df` of chronos-forecasting makes them."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tsprune.arguments import shown
from tsprune.errors import TspruneError, one_line
from tsprune.models.forecast import Predictor

if TYPE_CHECKING:
    import pandas as pd

_FEWEST = 3  # times that show a frequency


class FrameError(TspruneError, ValueError):
    """A table that cannot be forecast; a ValueError, as chronos-forecasting raises."""


@dataclasses.dataclass(frozen=True)
class LongTable:
    """The S series of a long table, in the order of their first rows.

    ids : [S]
    times : the times of all rows, by series and then in time
    ends : int64 [S], where each series ends in `times`
    values : the histories, [T], or [V, T] of several targets; with past covariates where a model has them
    """

    ids: NDArray[Any]
    times: pd.DatetimeIndex
    ends: NDArray[np.int64]
    values: list[Any]

    @classmethod
    def read(
        cls, frame: pd.DataFrame, id_column: str, timestamp_column: str, targets: Sequence[str]
    ) -> LongTable:
        """The series of `frame`, whose rows may be in any order.

        Raises FrameError for a missing column, a row without id or time, and times that cannot be read.
        """
        import pandas as pd

        _require_columns(frame, id_column, timestamp_column, targets)
        try:
            times = pd.DatetimeIndex(pd.to_datetime(frame[timestamp_column]))
        except (ValueError, TypeError, OverflowError) as error:
            raise FrameError(
                f"cannot read the times in column {timestamp_column!r} ({one_line(error, 200)})"
            ) from None
        codes, _ = pd.factorize(frame[id_column])
        for missing, name in ((codes < 0, id_column), (times.isna(), timestamp_column)):
            if missing.any():
                raise FrameError(f"row {int(np.argmax(missing))} has no value in column {name!r}")
        order = np.lexsort((times.asi8, codes))
        ends = np.cumsum(np.bincount(codes)).astype(np.int64)
        ids = frame[id_column].to_numpy()[order][ends - 1]
        columns = [np.split(frame[name].to_numpy()[order], ends[:-1]) for name in targets]
        values = columns[0] if len(columns) == 1 else [np.stack(rows) for rows in zip(*columns, strict=True)]
        return cls(ids, times[order], ends, values)

    def frequency(self) -> str:
        """The frequency that all series of three values and more share.

        Raises FrameError if there is none.
        """
        import pandas as pd

        found = set()
        for name, end, series in zip(self.ids, self.ends, self.values, strict=True):
            length = np.shape(series)[-1]
            if length >= _FEWEST:
                freq = pd.infer_freq(self.times[end - length : end])
                if freq is None:
                    raise FrameError(
                        f"Could not infer frequency for series {shown(name)}: its times are not regular"
                    )
                found.add(freq)
        if not found:
            raise FrameError("Could not infer frequency: no series has 3 values; pass freq")
        if len(found) > 1:
            raise FrameError(
                f"All time series must have the same frequency; found {', '.join(sorted(found))}"
            )
        return str(found.pop())

    def future(self, steps: int, freq: str) -> pd.DatetimeIndex:
        """The next `steps` times of each series, one series after the other [S * steps]."""
        import pandas as pd

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # spellings that pandas will drop
                offset = pd.tseries.frequencies.to_offset(freq)
        except (ValueError, TypeError):
            raise FrameError(f"{shown(freq)} is not a frequency of pandas, such as 'D' or '15min'") from None
        last = self.times[self.ends - 1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pd.errors.PerformanceWarning)  # offsets without vectors
            ahead = [last + step * offset for step in range(1, steps + 1)]
        by_step = np.arange(steps * len(last)).reshape(steps, len(last))
        return ahead[0].append(ahead[1:]).take(by_step.T.ravel())


def target_names(target: object) -> tuple[str, ...]:
    """The names of one or several target columns; FrameError for anything else."""
    names = target if isinstance(target, list | tuple) else [target]
    if not names or not all(isinstance(name, str) for name in names):
        raise FrameError(f"Expected `target` to be str or a list of them, but found {shown(target)}")
    return tuple(names)


def _require_columns(
    frame: pd.DataFrame, id_column: str, timestamp_column: str, targets: Sequence[str]
) -> None:
    columns = list(getattr(frame, "columns", ()))
    for target in targets:
        if target not in columns:
            raise FrameError(f"df does not contain the target column {shown(target)}")
    for name in (id_column, timestamp_column):
        if name not in columns:
            raise FrameError(f"df does not contain the column {shown(name)}; name id and time columns")
    if not len(frame):
        raise FrameError("df has no rows")


def predict_frame(
    model: Predictor,
    table: LongTable,
    steps: int,
    *,
    names: tuple[str, str],
    targets: Sequence[str],
    levels: Sequence[float],
    batch_size: int,
    freq: str | None = None,
) -> pd.DataFrame:
    """Forecasts of all series, one row per series, target and step; see `Forecaster.predict_df`.

    names : of the columns with ids and times
    """
    times = table.future(steps, freq or table.frequency())
    if len(targets) > 1:
        rows = np.arange(len(times)).reshape(-1, steps)
        times = times.take(np.repeat(rows, len(targets), axis=0).ravel())
    parts = [
        model.forecast(table.values[first : first + batch_size], steps)
        for first in range(0, len(table.values), batch_size)
    ]
    points = np.concatenate([part.point for part in parts])
    quantiles = np.concatenate([part.at(levels) for part in parts])
    return forecast_frame(
        np.repeat(table.ids, len(targets)),
        times,
        points,
        quantiles,
        names=names,
        targets=[*targets] * len(table.ids),
        levels=levels,
    )


def forecast_frame(
    ids: NDArray[Any],
    times: Any,
    points: NDArray[np.float32],
    quantiles: NDArray[np.float32],
    *,
    names: tuple[str, str],
    targets: Sequence[str],
    levels: Sequence[float],
) -> pd.DataFrame:
    """The columns of `predict_df`: id, time, target_name, predictions, and one per level.

    ids, targets : [S]; times : [S * H]; points : [S, H]; quantiles : [S, Q, H]
    names : of the columns with ids and times
    """
    import pandas as pd

    identity, time = names
    found = pd.DataFrame({identity: np.repeat(ids, points.shape[1]), time: times})
    found["target_name"] = np.repeat(np.array(targets, dtype=object), points.shape[1])
    found["predictions"] = points.ravel()
    for place, level in enumerate(levels):
        found[str(level)] = quantiles[:, place].ravel()
    return found
