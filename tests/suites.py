"""Small suites, and tiny models loaded once, for tests that forecast."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np

from tests.tiny import TINY
from tsprune.data import Configuration, Suite
from tsprune.models import Forecaster, load


@functools.cache
def tiny(name: str) -> Forecaster:
    """A model of `tests.tiny`, by name."""
    with tempfile.TemporaryDirectory() as directory:
        TINY[name](Path(directory))
        return load(directory, device="cpu")


def configuration(
    name: str, lengths: list[int], horizon: int, *, season: int = 4, owners: list[int] | None = None
) -> Configuration:
    """Noisy seasonal series of the given lengths; every window is of another series by default."""
    rng = np.random.default_rng(len(lengths) + horizon)
    whole = [
        10 + 3 * np.sin(2 * np.pi * np.arange(n + horizon) / season) + rng.standard_normal(n + horizon)
        for n in lengths
    ]
    return Configuration(
        name=name,
        freq="D",
        horizon=horizon,
        season=season,
        contexts=[x[:n].astype(np.float32) for x, n in zip(whole, lengths, strict=True)],
        targets=np.stack([x[n:] for x, n in zip(whole, lengths, strict=True)]).astype(np.float32),
        series=np.array(range(len(lengths)) if owners is None else owners, dtype=np.int64),
    )


def small_suite() -> Suite:
    """Two configurations of unlike lengths with gaps, one window without history, one thing skipped."""
    first = configuration("first/D/short", [30, 60, 45, 60, 17], horizon=5)
    first.contexts[1][:7] = np.nan
    first.contexts[3][[3, 20]] = np.nan
    first.targets[2, 1] = np.nan
    # longer than the output of the tiny Bolt: an autoregressive forecast
    second = configuration("second/D/short", [40, 0, 52, 64], horizon=11, season=7, owners=[0, 0, 1, 1])
    return Suite("small", (first, second), (("third/D/short", "no series is long enough"),))


def shared_suite() -> Suite:
    """The small suite, and a configuration whose windows share batches with those of its first one."""
    small = small_suite()
    third = configuration("third/D/short", [33, 58, 41], horizon=5, season=3)
    return Suite("shared", (*small.configurations, third))


LENGTH = 48  # of the histories of `waves`


def waves(period: int, count: int = 3, *, horizon: int = 2, phase: float | None = None) -> Suite:
    """`count` series of 48 steps, `phase` apart from a sine's start (by default 0, 1, 2, ... radians)."""
    steps = np.arange(LENGTH + horizon)
    phases = range(count) if phase is None else [phase] * count
    series = [np.sin(2 * np.pi * steps / period + start).astype(np.float32) for start in phases]
    c = Configuration(
        "w/D/short",
        "D",
        horizon,
        period,
        [x[:LENGTH] for x in series],
        np.stack([x[LENGTH:] for x in series]),
        np.arange(count),
    )
    return Suite("waves", (c,))


def orbit(name: str, period: int, horizon: int = 24) -> Configuration:
    """Two trajectories of a system that returns exactly: a copy of its past is its future."""
    steps = np.arange(96 + horizon)
    series = [np.sin(2 * np.pi * (steps + start) / period).astype(np.float32) for start in (0, 5)]
    contexts, targets = [x[:96] for x in series], np.stack([x[96:] for x in series])
    # a season unlike the period: otherwise the seasonal error, by which errors are scaled, would be 0
    return Configuration(name, "H", horizon, period // 3, contexts, targets, np.arange(2))


ORBITS = Suite("orbits", (orbit("b/H/short", 12), orbit("a/H/short", 24), orbit("c/H/short", 16)))
