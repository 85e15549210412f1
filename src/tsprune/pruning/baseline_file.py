"""Baseline: measurements of a model that later checkpoints are compared with (`tsprune.check`)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray

from tsprune.arguments import shown
from tsprune.atomic import write_whole
from tsprune.choices import CHECKED, Checked
from tsprune.cost.latency import Timed, in_turns, machine
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.evaluation import WindowStatistics, forecast_statistics
from tsprune.files import as_json, parse_json, read_text
from tsprune.models.forecaster import Forecaster, SamplingForecaster
from tsprune.pruning.heads_at import heads_at
from tsprune.run_options import Options, RunOptions
from tsprune.scores.stable_rank import stable_ranks

VERSION = 1
REDUNDANCY_LOSS = 0.01  # relative loss of MASE at which heads count as redundant
_BATCH, _CONTEXT, _HORIZON, _ROUNDS = 16, 512, 24, 20
_MATRIX, _PRODUCTS = 384, 20  # of the fixed work that forecasts are timed against
_STATISTICS = tuple(field.name for field in dataclasses.fields(WindowStatistics))


@dataclasses.dataclass(frozen=True)
class ScoredWindows:
    """The windows of a configuration that were forecast: their rows [M] and statistics."""

    rows: NDArray[np.int64]
    statistics: WindowStatistics


@dataclasses.dataclass(frozen=True)
class Baseline:
    """Measurements of one model on one suite; a part that was not measured is empty.

    model : its name
    suite, windows : name and fingerprint of the suite
    protocol : samples per window (None: the model does not sample) and seed, which must be alike to compare
    scores : configuration -> its scored windows
    stable_rank : address of a head -> stable rank
    redundancy : attention sublayer -> share of its heads that can go for a loss of 1 % (heads@1pp, chosen on
        the calibration series)
    latency : times of forecasts divided by those of a fixed piece of work, taken in turns, one per round, so
        that load of the machine affects both
    machine : the conditions of `latency`, which must be alike to compare
    skipped : (part, reason) of parts that could not be measured
    """

    model: str
    suite: str
    windows: str
    protocol: Mapping[str, int | None]
    scores: Mapping[str, ScoredWindows] = dataclasses.field(default_factory=dict)
    stable_rank: Mapping[str, float] = dataclasses.field(default_factory=dict)
    redundancy: Mapping[str, float] = dataclasses.field(default_factory=dict)
    latency: tuple[float, ...] = ()
    machine: str = ""
    skipped: tuple[tuple[str, str], ...] = ()

    @classmethod
    def measure(
        cls,
        model: Forecaster | Timed,
        suite: Suite,
        *,
        measures: Iterable[Checked] = CHECKED,
        **options: Unpack[Options],
    ) -> Baseline:
        """Measures a model, or an exported one, which has scores and latency.

        measures : parts to measure, of scores, stable_rank, redundancy and latency
        options : keywords of `tsprune.run_options.RunOptions`

        Raises TspruneError for an unknown part, and for a suite without windows.
        """
        wanted, chosen = checked_measures(measures), RunOptions(**options)
        suite.require_windows()
        found: dict[str, Any] = {}
        skipped = []
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "scores": lambda: {"scores": _scores(model, suite, chosen.batch_size)},
            "stable_rank": lambda: {"stable_rank": _stable_rank(_with_heads(model))},
            "redundancy": lambda: {"redundancy": _redundancy(_with_heads(model), suite, options)},
            "latency": lambda: {"latency": _latency(model), "machine": _machine(model)},
        }
        for name in wanted:
            try:
                found |= parts[name]()
            except TspruneError as error:
                skipped.append((name, str(error)))
        protocol = _protocol(model, chosen.seed)
        return cls(model.name, suite.name, suite.fingerprint, protocol, **found, skipped=tuple(skipped))

    def save(self, path: str | Path) -> None:
        """Writes the baseline to a JSON file, whole or not at all; TspruneError if it cannot be written."""
        content = dataclasses.asdict(dataclasses.replace(self, scores={}))
        content["scores"] = {name: _as_lists(one) for name, one in self.scores.items()}
        write_whole(path, as_json({"version": VERSION, **content}).encode())

    @classmethod
    def load(cls, path: str | Path) -> Baseline:
        """Reads a baseline; TspruneError if the file cannot be read, is damaged or of another version."""
        text = read_text(path, "baseline")
        try:
            stated = parse_json(text)
            if not isinstance(stated, dict):
                raise TypeError("not a JSON object")
            if stated["version"] != VERSION:
                raise ValueError(f"version {shown(stated['version'])}; this tsprune reads {VERSION}")
            return _stated(stated)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            detail = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise TspruneError(f"{path} is not a baseline of tsprune check ({detail})") from None


def checked_measures(measures: Iterable[str]) -> tuple[Checked, ...]:
    """`measures` in the order of `CHECKED`; TspruneError for others."""
    given = (measures,) if isinstance(measures, str) else tuple(measures)
    for name in given:
        if name not in CHECKED:
            raise TspruneError(f"unknown measure {shown(name)}; choose from: {', '.join(CHECKED)}")
    return tuple(name for name in CHECKED if name in given)


# --- measurements --------------------------------------------------------------------------------


def _with_heads(model: Forecaster | Timed) -> Forecaster:
    if not isinstance(model, Forecaster):
        raise TspruneError("an exported model has no heads; this is measured on the model that was exported")
    return model


def _scores(model: Forecaster | Timed, suite: Suite, batch_size: int) -> dict[str, ScoredWindows]:
    results = forecast_statistics(model, suite.configurations, batch_size=batch_size)
    return {
        c.name: ScoredWindows(one.rows, one.statistics)
        for c, one in zip(suite.configurations, results, strict=True)
        if one.statistics is not None
    }


def _stable_rank(model: Forecaster) -> dict[str, float]:
    table = stable_ranks(model)
    known = table[np.isfinite(table["stable_rank"])] if len(table) else table
    return dict(zip(known["address"], known["stable_rank"], strict=True)) if len(known) else {}


def _redundancy(model: Forecaster, suite: Suite, options: Options) -> dict[str, float]:
    table = heads_at(model, suite, max_loss=REDUNDANCY_LOSS, **options)
    rows = table.frame[table.frame["selection"] == "calibration"]
    names = (f"{row.stack}.{row.layer}.{row.attention}" for row in rows.itertuples())
    return dict(zip(names, (rows["removed"] / rows["heads"]).astype(float), strict=True))


def timed_horizon(*models: Forecaster | Timed) -> int:
    """Steps of the forecasts that are timed: as many as usual, or as all of `models` can."""
    return min(_HORIZON, *(_HORIZON if isinstance(one, Forecaster) else one.horizon for one in models))


def _device(model: Forecaster | Timed) -> torch.device:
    return model.device if isinstance(model, Forecaster) else torch.device("cpu")


def _latency(model: Forecaster | Timed) -> tuple[float, ...]:
    series = list(np.random.default_rng(0).standard_normal((_BATCH, _CONTEXT)).cumsum(1).astype(np.float32))
    forecast, work = partial(model.forecast, series, timed_horizon(model)), partial(_work, _device(model))
    forecast()
    work()
    seconds = in_turns(forecast, work, _ROUNDS)
    return tuple((seconds[0] / seconds[1]).tolist())


def _work(device: torch.device) -> float:
    matrix = torch.full((_MATRIX, _MATRIX), 1 / _MATRIX, device=device)
    product = matrix
    for _ in range(_PRODUCTS):
        product = product @ matrix
    return float(product[0, 0])


def _machine(model: Forecaster | Timed) -> str:
    work = f"batch {_BATCH}, context {_CONTEXT}, horizon {timed_horizon(model)}"
    return f"{_device(model).type}, {machine()}, {work}"


def _protocol(model: Forecaster | Timed, seed: int) -> dict[str, int | None]:
    if isinstance(model, SamplingForecaster):
        return {"samples": model.samples, "seed": model.seed}
    return {"samples": None, "seed": seed}


# --- files ---------------------------------------------------------------------------------------


def _as_lists(one: ScoredWindows) -> dict[str, list[float | None]]:
    columns = {name: getattr(one.statistics, name).tolist() for name in _STATISTICS}
    plain = {name: [x if math.isfinite(x) else None for x in column] for name, column in columns.items()}
    return {"rows": one.rows.tolist(), **plain}


def _stated(stated: Mapping[str, Any]) -> Baseline:
    for name in ("model", "suite", "windows", "machine"):
        if not isinstance(stated[name], str):
            raise TypeError(f"{name} is not text")
    protocol = stated["protocol"]
    if not isinstance(protocol, dict) or set(protocol) != {"samples", "seed"}:
        raise TypeError("protocol does not hold samples and seed")
    return Baseline(
        **{name: stated[name] for name in ("model", "suite", "windows", "machine", "protocol")},
        scores={str(name): _scored(one, str(name)) for name, one in stated["scores"].items()},
        stable_rank=_by_name(stated["stable_rank"], "stable_rank"),
        redundancy=_by_name(stated["redundancy"], "redundancy"),
        latency=tuple(_numbers(stated["latency"], "latency")),
        skipped=tuple((str(what), str(why)) for what, why in stated["skipped"]),
    )


def _scored(stated: Mapping[str, Any], name: str) -> ScoredWindows:
    rows = stated["rows"]
    if not all(type(row) is int and row >= 0 for row in rows) or len(set(rows)) < len(rows):
        raise ValueError(f"the rows of {name} are not those of windows")
    columns = [_numbers(stated[key], f"{key} of {name}", missing=True) for key in _STATISTICS]
    if any(len(column) != len(rows) for column in columns):
        raise ValueError(f"the columns of {name} are of unlike lengths")
    return ScoredWindows(np.array(rows, dtype=np.int64), WindowStatistics(*map(np.array, columns)))


def _by_name(stated: Mapping[str, Any], what: str) -> dict[str, float]:
    return dict(zip(map(str, stated.keys()), _numbers(list(stated.values()), what), strict=True))


def _numbers(values: Sequence[Any], what: str, *, missing: bool = False) -> list[float]:
    """Finite numbers as floats; with `missing`, None is NaN."""
    if not isinstance(values, list):
        raise TypeError(f"{what} is not a list")
    for value in values:
        real = type(value) in (int, float) and math.isfinite(value)
        if not real and not (missing and value is None):
            raise ValueError(f"{what} holds {shown(value)}")
    return [math.nan if value is None else float(value) for value in values]
