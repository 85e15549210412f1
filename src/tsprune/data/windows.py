"""GIFT-Eval's rules: from a frequency to horizon and season, from series to forecasting windows."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tsprune.data.suite import Configuration
from tsprune.errors import TspruneError

Series = NDArray[np.float32]

TERMS: dict[str, int] = {"short": 1, "medium": 10, "long": 15}
TEST_SHARE = 0.1
MAX_WINDOWS = 20

# steps of a short horizon by unit of the frequency; the M4 datasets have their own in GIFT-Eval
_HORIZONS: dict[str, int] = {"ME": 12, "W": 8, "D": 30, "h": 48, "min": 48, "s": 60}
_M4_HORIZONS: dict[str, int] = {"YE": 6, "QE": 8, "ME": 18, "W": 13, "D": 14, "h": 48}

# units as pandas has spelled them since 2.2, each with all spellings that it has used
_SPELLINGS = {"s": "S s", "min": "T min", "h": "H h", "D": "D", "B": "B", "W": "W", "ME": "M MS ME"}
_SPELLINGS |= {"QE": "Q QS QE", "YE": "A AS Y YS YE"}
_UNITS = {spelling: unit for unit, spellings in _SPELLINGS.items() for spelling in spellings.split()}
MULTIPLE_DIGITS = 5  # "86400s" is a day
_FREQUENCY = re.compile(r"([0-9]*)([A-Za-z]+)(?:-[A-Z]{3})?")


def parse_frequency(freq: str) -> tuple[int, str]:
    """(multiple, unit) of a pandas frequency in any spelling, without its anchor.

    "15T" and "15min" -> (15, "min"); "W-THU" -> (1, "W"); "QS-DEC" -> (1, "QE").

    Raises TspruneError for a frequency that GIFT-Eval's rules do not cover.
    """
    match = _FREQUENCY.fullmatch(freq.strip())
    unit = _UNITS.get(match[2]) if match else None
    multiple = int(match[1][:MULTIPLE_DIGITS] or 1) if match else 0
    if match is None or unit is None or not multiple or len(match[1]) > MULTIPLE_DIGITS:
        raise TspruneError(
            f'unknown frequency "{freq}"; use a pandas frequency such as "15min", "h" or "W-SUN"'
        )
    return multiple, unit


def season_length(freq: str) -> int:
    """Steps in a season of a frequency, >= 1: gluonts' `get_seasonality`, any spelling accepted."""
    from gluonts.time_feature import get_seasonality  # 0.2 s

    multiple, unit = parse_frequency(freq)
    steps = int(get_seasonality(unit))
    return steps // multiple if steps % multiple == 0 else 1  # as gluonts, which warns of the latter


def prediction_length(freq: str, term: str = "short", *, m4: bool = False) -> int:
    """Steps to forecast at a frequency and term ("short", "medium", "long").

    Raises TspruneError for a frequency without a horizon in GIFT-Eval (quarterly outside M4, ...).
    """
    _, unit = parse_frequency(freq)
    horizons = _M4_HORIZONS if m4 else _HORIZONS
    if unit not in horizons:
        raise TspruneError(f'GIFT-Eval has no horizon for frequency "{freq}"; it knows {", ".join(horizons)}')
    return horizons[unit] * TERMS[term]


def window_count(shortest: int, horizon: int, *, m4: bool = False) -> int:
    """Windows per series: enough to cover a tenth of the shortest series, at most 20; one for M4."""
    if m4:
        return 1
    return min(max(1, math.ceil(TEST_SHARE * shortest / horizon)), MAX_WINDOWS)


def cut_windows(
    series: Sequence[Series],
    *,
    name: str,
    freq: str,
    horizon: int,
    season: int,
    windows: int | Sequence[int],
    step: int | None = None,
    context: int | None = None,
    num_variates: int = 1,
    domain: str = "",
    labels: Sequence[str] | None = None,
    entities: Sequence[int] | None = None,
    covariates: Sequence[Series | None] | None = None,
) -> tuple[Configuration | None, list[tuple[str, str]]]:
    """Cuts each series into windows, of which the last one ends with the series.

    series : univariate float32 arrays; the contexts are views of them. Infinite values are missing (NaN in
        a copy), as in every forecast
    windows : of each series, or of every one
    step : steps between the windows of a series; default the horizon, so that they do not overlap
    context : most steps of history; default all from the first step on
    labels : names of the series in the list of what is left out; default their numbers
    entities : series of one number are variates of one multivariate series, as long as each other; default
        none are
    covariates : of each series its past covariates [C, T]; default none

    Returns the configuration, its windows ordered by series and then by time (None if no series is long
    enough), and (name, reason) of all that was left out.
    """
    windows_of: list[tuple[int, Series, Series]] = []
    past: list[Series] = []
    groups: dict[tuple[int, int], int] = {}  # (entity, origin) -> number
    grouped: list[int] = []
    skipped: list[tuple[str, str]] = []
    step = horizon if step is None else step
    for index, values in enumerate(series):
        count = windows if isinstance(windows, int) else windows[index]
        first = len(values) - horizon - (count - 1) * step
        if first < 1:
            needed = len(values) - first + 1
            reason = f"{len(values)} steps; {count} windows of {horizon} need at least {needed}"
            label = f"series {index}" if labels is None else labels[index]
            skipped.append((f"{name}, {label}" if label else name, reason))
            continue
        infinite = np.isinf(values)
        values = np.where(infinite, np.float32(np.nan), values) if infinite.any() else values
        for origin in range(first, len(values) - horizon + 1, step):
            start = 0 if context is None else max(0, origin - context)
            windows_of.append((index, values[start:origin], values[origin : origin + horizon]))
            beside = None if covariates is None else covariates[index]
            past += [] if beside is None else [beside[:, start:origin]]
            entity = index if entities is None else entities[index]
            grouped.append(groups.setdefault((entity, origin), len(groups)))
    if not windows_of:
        return None, [(name, "no series is long enough for its windows"), *skipped]
    owners, contexts, targets = zip(*windows_of, strict=True)
    configuration = Configuration(
        name=name,
        freq=freq,
        horizon=horizon,
        season=season,
        contexts=list(contexts),
        targets=np.stack(targets),
        series=np.array(owners, dtype=np.int64),
        num_variates=num_variates,
        domain=domain,
        groups=np.array(grouped, dtype=np.int64) if len(groups) < len(grouped) else None,
        covariates=past or None,
    )
    return configuration, skipped
