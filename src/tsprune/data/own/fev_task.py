"""The windows of a fev task, which it cuts itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tsprune.arguments import shown, whole
from tsprune.data.own.rolling import plain_name
from tsprune.data.suite import Configuration, Suite
from tsprune.data.windows import Series
from tsprune.errors import TspruneError

_NEEDED = ("iter_windows", "horizon", "seasonality", "freq", "id_column", "target_columns")


def suite_of_task(task: Any, name: str | None = None) -> Suite:
    """The suite of `from_fev`: windows by series, and of one series in the task's order."""
    missing = [attribute for attribute in _NEEDED if not hasattr(task, attribute)]
    if missing:
        raise TspruneError(f"{shown(task)} is not a fev task: it has no {', '.join(missing)}")
    horizon = whole(task.horizon, "the task's horizon")
    windows: dict[tuple[str, str], list[tuple[Series, Series]]] = {}
    past: dict[tuple[str, str], list[Series]] = {}
    for key, history, future, beside in _windows(task):
        if len(future) != horizon:
            raise TspruneError(
                f"the target of {key[0]} has {len(future)} steps; the task's horizon is {horizon}"
            )
        windows.setdefault(key, []).append((history, future))
        past.setdefault(key, []).append(beside)
    if not windows:
        raise TspruneError("the fev task has no windows")
    label = plain_name(str(name or getattr(task, "task_name", None) or "fev"))
    flat = [pair for pairs in windows.values() for pair in pairs]
    groups: dict[tuple[str, int], int] = {}
    group_of = [
        groups.setdefault((label, place), len(groups))
        for (label, _), pairs in windows.items()
        for place in range(len(pairs))
    ]
    configuration = Configuration(
        name=f"{label}/{task.freq}/{horizon}",
        freq=str(task.freq),
        horizon=horizon,
        season=whole(task.seasonality, "the task's seasonality"),
        contexts=[history for history, _ in flat],
        targets=np.stack([future for _, future in flat]),
        series=np.repeat(np.arange(len(windows)), [len(pairs) for pairs in windows.values()]),
        num_variates=len(task.target_columns),
        groups=np.array(group_of) if len(task.target_columns) > 1 else None,
        covariates=[one for several in past.values() for one in several] if _past_columns(task) else None,
    )
    return Suite(label, (configuration,), about="a fev task")


def _past_columns(task: Any) -> list[str]:
    """Columns that fev gives up to the cutoff alone."""
    return [str(column) for column in getattr(task, "past_dynamic_columns", None) or ()]


def _windows(task: Any) -> Iterator[tuple[tuple[str, str], Series, Series, Series]]:
    """(id, target column), history, future and past covariates [C, T] of each window."""
    for window in task.iter_windows():
        past, future = window.get_input_data()[0], window.get_ground_truth()
        targets = {str(row[task.id_column]): row for row in future}
        for row in past:
            label = str(row[task.id_column])
            if label not in targets:
                raise TspruneError(f"the fev task has no target of {label}")
            beside = _values([row[column] for column in _past_columns(task)])
            for column in task.target_columns:
                yield (label, column), _values(row[column]), _values(targets[label][column]), beside


def _values(values: Any) -> Series:
    found = np.asarray(values, dtype=np.float32)
    return np.where(np.isinf(found), np.float32(np.nan), found)
