"""Forecasts of the steps after the end of every series in a user's file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tsprune.data.own.own_options import DataOptions, OwnOptions
from tsprune.data.own.regular_series import RegularSeries
from tsprune.data.own.rolling import plain_name
from tsprune.data.windows import season_length
from tsprune.errors import TspruneError
from tsprune.evaluation.batching import reading_of
from tsprune.evaluation.single_series import unread_note
from tsprune.models.contexts import CovariateContext
from tsprune.models.forecast import LEVELS
from tsprune.progress import Progress, showing
from tsprune.run_options import BATCH_SIZE
from tsprune.schema import Table

if TYPE_CHECKING:
    import pandas as pd

    from tsprune.models.forecast import Predictor


def future_values(
    model: Predictor,
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

    Returns the columns of `Forecaster.predict_df`: item_id (the file's name for a table without ids),
    timestamp (`step`, from 1, if a series has no times), target_name (the column that was forecast),
    predictions, and one per level. Variates of one series follow each other, at the same times. Series
    without a value or a finite forecast are in `skipped`.

    Raises TspruneError for a file that cannot be understood, and if no series can be forecast.
    """
    from tsprune.data.own.user_data import whole_series  # imports pyarrow

    rules = OwnOptions(**options)
    series, skipped = whole_series(path, rules)
    usable, unused = _usable(series, min(rules.context or model.context_length, model.context_length))
    skipped += unused
    horizons = {
        freq: rules.horizon_of(freq, rules.season or season_length(freq))
        for freq in {entity[0].freq for entity in usable}
    }
    dated = all(one.start is not None for entity in usable for one in entity)
    unnamed = plain_name(Path(path).name.partition(".")[0])
    parts: list[pd.DataFrame] = []
    with showing(progress) as report:
        for first in range(0, len(usable), batch_size):
            batch = usable[first : first + batch_size]
            for steps in dict.fromkeys(horizons[entity[0].freq] for entity in batch):
                alike = [entity for entity in batch if horizons[entity[0].freq] == steps]
                frame, lost = _forecast(model, alike, steps, rules.context, levels, unnamed, dated=dated)
                parts.append(frame)
                skipped += lost
            report("forecast", first + len(batch), len(usable))
    if not sum(map(len, parts)):
        name, why = skipped[-1] if skipped else (str(path), "it holds no series")
        raise TspruneError(f"no series of {path} could be forecast ({name}: {why})")
    title = f"{model.name}: the steps after {path}"
    notes = unread_note(model, str(path)) if rules.covariates else ()
    return Table(_joined(parts, usable, unnamed), title, tuple(skipped), notes=notes)


_Entity = list[RegularSeries]  # a series, or the variates of one


def _usable(series: Sequence[RegularSeries], visible: int) -> tuple[list[_Entity], list[tuple[str, str]]]:
    """The series that have a value among the last `visible` steps, and (id, reason) of the others."""
    entities: dict[int, _Entity] = defaultdict(list)
    skipped = []
    for one in series:
        if np.isfinite(one.values[-visible:]).any():
            entities[one.entity].append(one)
        else:
            reason = f"no value in the last {visible} steps" if len(one.values) else "no value"
            skipped.append((one.id, reason))
    return list(entities.values()), skipped


def _forecast(
    model: Predictor,
    entities: Sequence[_Entity],
    steps: int,
    context: int | None,
    levels: Sequence[float],
    unnamed: str,
    *,
    dated: bool,
) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """The rows of a batch, and (id, reason) of series whose forecast is not finite."""
    from tsprune.models.forecaster import with_gaps
    from tsprune.models.predict_df import forecast_frame

    cut = slice(-context if context else None, None)
    reads = reading_of(model).covariates
    found = with_gaps(model, [_context(entity, cut, reads=reads) for entity in entities], steps)
    finite = found.finite()
    series = [one for entity in entities for one in entity]
    kept = [one for one, known in zip(series, finite, strict=True) if known]
    times: Any = np.concatenate([_times(one, steps, dated) for one in kept]) if kept else []
    frame = forecast_frame(
        np.array([one.item or unnamed for one in kept], dtype=object),
        times,
        found.point[finite],
        found.at(levels)[finite],
        names=("item_id", "timestamp" if dated else "step"),
        targets=[one.target or "target" for one in kept],
        levels=levels,
    )
    lost = [one.id for one, known in zip(series, finite, strict=True) if not known]
    return frame, [(name, "the forecast is not finite") for name in lost]


def _context(entity: _Entity, cut: slice, *, reads: bool) -> ArrayLike:
    target, past = np.stack([one.values[cut] for one in entity]), entity[0].covariates
    return target if past is None or not reads else CovariateContext(target, past[:, cut])


def _times(one: RegularSeries, steps: int, dated: bool) -> NDArray[Any]:
    if not dated or one.start is None:
        return np.arange(1, steps + 1)
    length = len(one.values)
    after = one.step.at(one.start, np.arange(length, length + steps, dtype=np.int64))
    return after.astype("datetime64[us]").astype("datetime64[ns]")


def _joined(parts: Sequence[pd.DataFrame], entities: Sequence[_Entity], unnamed: str) -> pd.DataFrame:
    """All rows, in the order of the series in the file."""
    import pandas as pd

    whole = pd.concat([part for part in parts if len(part)], ignore_index=True)
    order = {entity[0].item or unnamed: place for place, entity in enumerate(entities)}
    return whole.sort_values("item_id", key=lambda ids: ids.map(order), kind="stable", ignore_index=True)
