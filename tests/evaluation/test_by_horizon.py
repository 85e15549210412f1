"""Windows of one horizon put together: none lost, none mixed up."""

from __future__ import annotations

import numpy as np

from tests.suites import configuration, tiny
from tsprune.data import Suite
from tsprune.evaluation import prepare
from tsprune.evaluation.sampling import by_horizon, sampled

A = configuration("a/D/short", [60, 90, 30], 12, owners=[0, 0, 1])
B = configuration("b/D/short", [40, 50], 6, season=7)
C = configuration("c/D/short", [80, 70], 12, season=2)


def test_nothing_is_lost_or_mixed_up() -> None:
    suite, prepared = by_horizon(Suite("s", (A, B, C)))
    long, short = suite.configurations
    assert [c.horizon for c in suite.configurations] == [12, 6]
    assert [p.configuration for p in prepared] == [long, short]
    parts = [(A, row) for row in range(3)] + [(C, row) for row in range(2)]
    for number, (c, row) in enumerate(parts):
        np.testing.assert_array_equal(long.contexts[number], c.contexts[row])
        np.testing.assert_array_equal(long.targets[number], c.targets[row])
        assert prepared[0].season_errors[number] == prepare(c).season_errors[row]
    assert long.series.tolist() == [0, 0, 1, 2, 3]
    assert len(prepared[0].baseline) == 5


def test_a_part_is_evenly_spread() -> None:
    c = configuration("a/D/short", [60] * 9, 4)
    (few,) = sampled(Suite("s", (c,)), tiny("tiny-timesfm"), 3).configurations
    assert few.series.tolist() == [0, 4, 8]
