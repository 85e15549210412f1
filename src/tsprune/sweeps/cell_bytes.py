"""Scores of a cell as bytes and back, without pickle."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsprune.errors import one_line
from tsprune.evaluation import WindowStatistics
from tsprune.models.forecaster import Forecast
from tsprune.sweeps.sweep_result import CellScores, WindowScores

_FIELDS = tuple(field.name for field in dataclasses.fields(WindowStatistics))
_MOST = 2**30  # values of one array: more than any cell has


class DamagedRowError(Exception):
    """Bytes that `to_bytes` did not write."""


def to_bytes(scores: CellScores) -> bytes:
    """The arrays as .npz."""
    arrays: dict[str, NDArray[np.generic]] = {
        "rows": scores.rows,
        "spearman": scores.scores.spearman,
        "statistics": np.stack([getattr(scores.scores.statistics, name) for name in _FIELDS]),
        "fields": np.array(_FIELDS),
        "seconds": np.array(scores.seconds),
    }
    if scores.forecast is not None:
        arrays |= {"quantiles": scores.forecast.quantiles, "levels": np.array(scores.forecast.levels)}
    buffer = io.BytesIO()
    # numpy's stub takes the keyword arguments for allow_pickle
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def from_bytes(data: bytes, windows: int | None = None) -> CellScores:
    """The scores that `to_bytes` wrote, bit-identical.

    windows : of the cell's configuration; its rows must be among them

    Raises DamagedRowError for anything else.
    """
    if not isinstance(data, bytes):
        raise DamagedRowError("unreadable scores: not bytes")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
        return _scores(found, windows)
    except Exception as error:  # numpy and zipfile raise many kinds of errors for damaged bytes
        raise DamagedRowError(f"unreadable scores: {one_line(error, 200)}") from None


def _scores(arrays: dict[str, Any], windows: int | None) -> CellScores:
    """A cell from arrays; ValueError if their shapes contradict each other."""
    rows = _array(arrays, "rows", "i", (None,))
    count = len(rows)
    if count and (rows.min() < 0 or len(np.unique(rows)) < count):
        raise ValueError("rows below 0, or twice")
    if windows is not None and count and rows.max() >= windows:
        raise ValueError(f"row {rows.max()} of {windows} windows")
    statistics = _array(arrays, "statistics", "f", (None, count))
    columns = dict(zip(_array(arrays, "fields", "U", (None,)).tolist(), statistics, strict=True))
    forecast = None
    if "quantiles" in arrays:
        levels = _array(arrays, "levels", "f", (None,))
        forecast = Forecast(
            _array(arrays, "quantiles", "f", (count, len(levels), None)), tuple(levels.tolist())
        )
    scores = WindowScores(WindowStatistics(**columns), _array(arrays, "spearman", "f", (count,)))
    return CellScores(rows, scores, forecast, float(_array(arrays, "seconds", "f", ())))


def _array(arrays: dict[str, Any], name: str, kind: str, shape: tuple[int | None, ...]) -> Any:
    """One of the arrays, if it is of a kind of dtype and a shape (None: any length)."""
    array = arrays[name]
    fits = array.ndim == len(shape) and all(
        n is None or n == m for n, m in zip(shape, array.shape, strict=True)
    )
    if array.dtype.kind != kind or not fits or array.size > _MOST:
        raise ValueError(f"{name} is {array.dtype} {list(array.shape)}")
    return array
