"""Forecasts of the steps after the end of every series in a user's file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import NDArray

from tsprune.data.own.own_options import DataOptions, OwnOptions
from tsprune.data.own.regular_series import RegularSeries
from tsprune.data.windows import season_length
from tsprune.errors import TspruneError
from tsprune.models.forecast import LEVELS
from tsprune.progress import Progress, showing
from tsprune.run_options import BATCH_SIZE
from tsprune.schema import Table

if TYPE_CHECKING:
    import pandas as pd

    from tsprune.models.forecaster import Forecaster


def future_values(
    model: Forecaster,
    path: str | Path,
    *,
    levels: Sequence[float] = LEVELS,
    batch_size: int = BATCH_SIZE,
    progress: Progress | bool | None = None,
    **options: Unpack[DataOptions],
) -> Table:
    """Forecasts the steps after the last value of each series in a file, one row per series and step.

    path, options : as in `tsprune.data.from_file`; `horizon` steps, by default a season
    levels : of the quantiles
    batch_size : series forecast together

    Returns the columns of `Forecaster.predict_df`: item_id, timestamp (`step`, from 1, if a series has no
    times), target_name, predictions, and one per level. Series without a value or a finite forecast are in
    `skipped`.

    Raises TspruneError for a file that cannot be understood, and if no series can be forecast.
    """
    from tsprune.data.own.user_data import whole_series  # imports pyarrow

    rules = OwnOptions(**options)
    series, skipped = whole_series(path, rules)
    skipped += [(one.id, "no value") for one in series if not len(one.values)]
    known = [one for one in series if len(one.values)]
    horizons = {
        freq: rules.horizon_of(freq, rules.season or season_length(freq)) for freq in {x.freq for x in known}
    }
    dated = all(one.start is not None for one in known)
    target = rules.targets[0] if len(rules.targets) == 1 else "target"
    parts = []
    with showing(progress) as report:
        for first in range(0, len(known), batch_size):
            batch = known[first : first + batch_size]
            for steps in dict.fromkeys(horizons[one.freq] for one in batch):
                alike = [one for one in batch if horizons[one.freq] == steps]
                frame, lost = _forecast(model, alike, steps, rules.context, levels, target, dated=dated)
                parts.append(frame)
                skipped += lost
            report("forecast", first + len(batch), len(known))
    rows = sum(map(len, parts))
    if not rows:
        name, why = skipped[-1] if skipped else (str(path), "it holds no series")
        raise TspruneError(f"no series of {path} could be forecast ({name}: {why})")
    return Table(_joined(parts, known), f"{model.name}: the steps after {path}", tuple(skipped))


def _forecast(
    model: Forecaster,
    series: Sequence[RegularSeries],
    steps: int,
    context: int | None,
    levels: Sequence[float],
    target: str,
    *,
    dated: bool,
) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """The rows of a batch, and (id, reason) of series whose forecast is not finite."""
    from tsprune.models.forecaster import with_gaps
    from tsprune.models.predict_df import forecast_frame

    found = with_gaps(model, [one.values[-context if context else None :] for one in series], steps)
    finite = found.finite()
    kept = [one for one, known in zip(series, finite, strict=True) if known]
    times: Any = np.concatenate([_times(one, steps, dated) for one in kept]) if kept else []
    ids = np.array([one.id for one in kept], dtype=object)
    names = ("item_id", "timestamp" if dated else "step", target)
    frame = forecast_frame(
        ids, times, found.point[finite], found.at(levels)[finite], names=names, levels=levels
    )
    lost = [one.id for one, known in zip(series, finite, strict=True) if not known]
    return frame, [(name, "the forecast is not finite") for name in lost]


def _times(one: RegularSeries, steps: int, dated: bool) -> NDArray[Any]:
    if not dated or one.start is None:
        return np.arange(1, steps + 1)
    length = len(one.values)
    after = one.step.at(one.start, np.arange(length, length + steps, dtype=np.int64))
    return after.astype("datetime64[us]").astype("datetime64[ns]")


def _joined(parts: Sequence[pd.DataFrame], series: Sequence[RegularSeries]) -> pd.DataFrame:
    """All rows, in the order of the series in the file."""
    import pandas as pd

    whole = pd.concat([part for part in parts if len(part)], ignore_index=True)
    order = {one.id: place for place, one in enumerate(series)}
    return whole.sort_values("item_id", key=lambda ids: ids.map(order), kind="stable", ignore_index=True)
