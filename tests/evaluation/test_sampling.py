"""Which windows are looked at: evenly spread, and each once."""

from __future__ import annotations

import numpy as np

from tests.suites import configuration, small_suite
from tests.toy import Toy
from tsprune.data import Suite
from tsprune.evaluation.sampling import batched, sampled


def test_a_few_windows_evenly_spread() -> None:
    c = configuration("a/D/short", list(range(20, 31)), 3)
    (kept,) = sampled(Suite("s", (c,)), Toy(), 3).configurations
    assert [len(x) for x in kept.contexts] == [20, 25, 30]
    (every,) = sampled(Suite("s", (c,)), Toy(), 11).configurations
    assert [len(x) for x in every.contexts] == list(range(20, 31))


def test_what_cannot_be_forecast_is_left_out() -> None:
    kept = sampled(small_suite(), Toy())
    assert [len(c) for c in kept.configurations] == [5, 3]  # one of the second has no history
    assert len(sampled(Suite("s", (configuration("a/D/short", [0], 3),)), Toy()).configurations) == 0


def test_every_window_is_in_one_batch() -> None:
    toy, suite = Toy(), sampled(small_suite(), Toy())
    parts = list(batched(suite, toy, batch_size=2))
    assert [part.first for part in parts] == [0, 2, 4, 5, 7]
    assert [len(part.contexts) for part in parts] == [2, 2, 1, 2, 1]
    assert all(len(context) <= toy.context_length for part in parts for context in part.contexts)
    # series of unlike configurations have unlike numbers
    first, second = (
        {int(s) for part in parts if part.configuration is c for s in part.series}
        for c in suite.configurations
    )
    assert first.isdisjoint(second)
    targets = np.concatenate([part.targets.flatten() for part in parts])
    assert np.isfinite(targets).sum() == 5 * 5 - 1 + 3 * 11
