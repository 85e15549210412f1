"""A few windows that stand for all: as many of every configuration, both sides of the split, nested."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.suites import configuration, small_suite
from tsprune.data import Suite, pocket
from tsprune.data.split import CALIBRATION_FRACTION, calibration_mask
from tsprune.data.stratified import rounds, stratified, window_order
from tsprune.errors import TspruneError


def lasts(suite: Suite) -> set[tuple[str, bytes]]:
    """What tells the windows of a suite apart."""
    return {(c.name, np.asarray(x).tobytes()) for c in suite.configurations for x in c.contexts}


def test_a_worked_example() -> None:
    """Eight windows of one series: the earlier half calibrates; sides take turns, each spread over time."""
    one = configuration("a/D/short", [30, 31, 32, 33, 34, 35, 36, 37], horizon=4, owners=[0] * 8)
    assert [rows.tolist() for rows in window_order(one)] == [[0], [4], [2], [6], [1], [5], [3], [7]]


def test_variates_of_a_window_stay_together() -> None:
    plain = configuration("a/D/short", [30, 30, 31, 31, 32, 32], horizon=4, owners=[0, 1] * 3)
    one = dataclasses.replace(plain, groups=np.array([0, 0, 1, 1, 2, 2]))
    suite = Suite("one", (one,))
    assert sorted(rows.tolist() for rows in window_order(one)) == [[0, 1], [2, 3], [4, 5]]
    assert [len(stratified(suite, count)) for count in (1, 2, 3, 4, 5)] == [2, 2, 2, 4, 4]
    assert [len(part) for part, _ in rounds(suite, 2)] == [4, 2]


def test_configurations_have_as_many_windows_and_larger_choices_contain_smaller_ones() -> None:
    suite = pocket()
    few, more = stratified(suite, 30), stratified(suite, 100)
    assert [len(c) for c in few.configurations] == [2] * 15
    assert len(more) == 100
    assert {len(c) for c in more.configurations} <= {5, 6, 7}
    assert lasts(few) < lasts(more) < lasts(suite)
    assert few.name == "pocket (30 of 369 windows)"
    assert stratified(suite, 10**6) is suite
    assert stratified(suite, 30).fingerprint == few.fingerprint
    for c in suite.configurations:
        mask = calibration_mask(c, CALIBRATION_FRACTION, 0)
        assert sorted(bool(mask[rows[0]]) for rows in window_order(c)[:2]) == [False, True]


def test_rounds_hold_every_window_once() -> None:
    suite = small_suite()
    found = list(rounds(suite, 2))
    assert [len(part) for part, _ in found] == [4, 4, 1]
    assert sum(map(len, (part for part, _ in found))) == len(suite)
    assert set().union(*(lasts(part) for part, _ in found)) == lasts(suite)
    for part, rows in found:
        for c, own in zip(part.configurations, rows, strict=True):
            whole = next(one for one in suite.configurations if one.name == c.name)
            np.testing.assert_array_equal(c.targets, whole.targets[own])
    assert lasts(found[0][0]) == lasts(stratified(suite, 4))


def test_mistakes_are_named() -> None:
    with pytest.raises(TspruneError, match="count must be at least 1, not 0"):
        stratified(small_suite(), 0)
