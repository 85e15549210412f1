"""Regular series become a suite: rolling origins, one configuration per frequency."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from tsprune.data.own.own_options import OwnOptions
from tsprune.data.own.regular_series import RegularSeries
from tsprune.data.suite import Configuration, Origins, Suite
from tsprune.data.windows import cut_windows, season_length


def suite_of_series(
    series: Sequence[RegularSeries],
    rules: OwnOptions,
    *,
    name: str,
    about: str = "",
    skipped: Sequence[tuple[str, str]] = (),
) -> Suite:
    """Windows of all series, one configuration per frequency, in the order of the series.

    Series without a value, or too short for their windows, are listed in `Suite.skipped`.
    """
    left_out = [*skipped, *((one.id or name, "no value") for one in series if not one.values.size)]
    by_freq: dict[str, list[RegularSeries]] = {}
    for one in series:
        if one.values.size:
            by_freq.setdefault(one.freq, []).append(one)
    configurations = []
    for freq, members in by_freq.items():
        configuration, too_short = _configuration(freq, members, rules, plain_name(name))
        left_out += too_short
        if configuration is not None:
            configurations.append(configuration)
    return Suite(plain_name(name), tuple(configurations), tuple(left_out), about)


def plain_name(name: str) -> str:
    """`name` as part of a configuration's name: without spaces, slashes and wildcards."""
    return re.sub(r"[\s/*?\[\]]+", "_", name) or "data"


def _configuration(
    freq: str, members: Sequence[RegularSeries], rules: OwnOptions, name: str
) -> tuple[Configuration | None, list[tuple[str, str]]]:
    season = rules.season or season_length(freq)
    horizon = rules.horizon_of(freq, season)
    step = rules.step or horizon
    windows = [rules.windows_of(len(one.values), horizon) for one in members]
    configuration, skipped = cut_windows(
        [one.values for one in members],
        name=f"{name}/{freq}/{horizon}",
        freq=freq,
        horizon=horizon,
        season=season,
        windows=windows,
        step=step,
        context=rules.context,
        num_variates=max(Counter(one.entity for one in members).values()),
        labels=[one.id for one in members],
        entities=[one.entity for one in members],
        covariates=[one.covariates for one in members],
    )
    if configuration is None:
        return None, skipped
    return dataclasses.replace(configuration, origins=_origins(configuration, members, step)), skipped


def _origins(configuration: Configuration, members: Sequence[RegularSeries], step: int) -> Origins:
    """Ids, and times of the first step of every window's context."""
    owners = [members[int(owner)] for owner in configuration.series]
    starts = np.full(len(owners), np.datetime64("NaT", "us"))
    after = 0  # steps between the ends of the window and of its series
    for window in reversed(range(len(owners))):
        one = owners[window]
        after = after + step if window + 1 < len(owners) and owners[window + 1] is one else 0
        first = len(one.values) - configuration.horizon - after - len(configuration.contexts[window])
        if one.start is not None:
            starts[window] = np.datetime64(int(one.step.at(one.start, np.array([first]))[0]), "us")
    gaps = np.array([one.gaps for one in owners], dtype=np.int64)
    return Origins(tuple(one.id for one in owners), starts, tuple(one.step for one in owners), gaps)
