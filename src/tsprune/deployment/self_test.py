"""The self-test of an exported folder: its files, and its forecasts of a few stored series."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tsprune.deployment.description import SELF_TEST, read_description, sha256_of
from tsprune.deployment.exported import Exported, load_exported
from tsprune.errors import TspruneError
from tsprune.files import user_path

FP32_DISTANCE = 1e-4  # of fp32, relative to the largest quantile of a series
_FACTOR = 2.0  # int8 rounds otherwise on other processors
_Arrays = dict[str, NDArray[np.float32]]


@dataclasses.dataclass(frozen=True)
class SelfTest:
    """The outcome of `verify_export`.

    wrong : files that are missing or changed
    distance : of the quantiles from those of the model, relative to the largest; NaN if files are wrong
    allowed : the most that counts as the same
    """

    name: str
    wrong: tuple[str, ...]
    distance: float
    allowed: float

    @property
    def holds(self) -> bool:
        return not self.wrong and self.distance <= self.allowed


def probe_series(length: int) -> list[NDArray[np.float32]]:
    """Six series of up to `length` steps: plain, with gaps, short, constant, large and with a season."""
    rng = np.random.default_rng(20260201)
    steps = np.arange(length)
    series = [rng.normal(size=length).cumsum() for _ in range(3)]
    series[1][length // 3 : length // 2] = np.nan
    series[2] = series[2][-max(1, length // 3) :]
    series.append(np.full(length, 4.0))
    series.append(1e6 + 1e4 * rng.normal(size=length).cumsum())
    series.append(10 + np.sin(2 * np.pi * steps / 24) + 0.1 * rng.normal(size=length))
    return [values.astype(np.float32) for values in series]


def stored(expected: NDArray[np.float32], length: int) -> _Arrays:
    """The arrays of the self-test's file: contexts of `probe_series`, and quantiles [6, Q, H]."""
    contexts = {f"context_{index}": values for index, values in enumerate(probe_series(length))}
    # safetensors writes the memory of an array, whatever its strides
    return {**contexts, "quantiles": np.ascontiguousarray(expected)}


def quantile_distance(
    found: NDArray[np.float32], expected: NDArray[np.float32], *, drawn: bool = False
) -> float:
    """The largest difference of quantiles [B, Q, H], relative to the largest value of its series.

    drawn : from paths; then of each series the median difference, as a draw within rounding of a border
        (between two tokens, components or counts) falls on either side of it
    """
    sizes = np.abs(expected).max(axis=(1, 2))
    off = np.abs(found - expected)
    of_series = np.median(off, axis=(1, 2)) if drawn else off.max(axis=(1, 2))
    return float((of_series / np.where(sizes == 0, 1, sizes)).max())


def verify_export(folder: str | Path, *, device: str | None = None) -> SelfTest:
    """Checks the files of an exported folder by their SHA-256, and its forecasts by those of its model.

    device : as `load_exported` takes it

    Raises TspruneError in one line if it is no exported folder, or its runtime cannot read it.
    """
    path = user_path(folder)
    about = read_description(path)
    wrong = tuple(name for name, digest in about.files.items() if not _is(path / name, digest))
    allowed = max(FP32_DISTANCE, _FACTOR * about.distance if about.precision != "fp32" else 0.0)
    if wrong:
        return SelfTest(str(folder), wrong, float("nan"), allowed)
    contexts, expected = _read(path / SELF_TEST)
    distance = _distance(load_exported(folder, device=device), contexts, expected)
    return SelfTest(str(folder), (), distance, allowed)


def _is(path: Path, digest: str) -> bool:
    try:
        return sha256_of(path) == digest
    except OSError:
        return False


def _read(path: Path) -> tuple[list[NDArray[np.float32]], NDArray[np.float32]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(path)
        return [arrays[f"context_{index}"] for index in range(len(arrays) - 1)], arrays["quantiles"]
    except (SafetensorError, OSError, KeyError) as error:
        raise TspruneError(f"{path}: the self-test cannot be read ({error})") from None


def measured_distance(model: Exported, expected: NDArray[np.float32], length: int) -> float:
    """The distance of an exported model's forecasts of the self-test from `expected`."""
    return _distance(model, probe_series(length), expected)


def _distance(model: Exported, contexts: list[NDArray[np.float32]], expected: NDArray[np.float32]) -> float:
    found = model.forecast(contexts, model.horizon).quantiles
    return quantile_distance(found, expected, drawn=model.description.sampling is not None)
