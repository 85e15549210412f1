"""Calibration and report share no series."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsprune.data import Configuration, Suite, calibration_mask, split
from tsprune.errors import TspruneError


def configuration_of(owners: list[int], name: str = "x/D/short") -> Configuration:
    return Configuration(
        name=name,
        freq="D",
        horizon=1,
        season=1,
        contexts=[np.zeros(1 + owners[:row].count(owner), np.float32) for row, owner in enumerate(owners)],
        targets=np.zeros((len(owners), 1), np.float32),
        series=np.array(owners, dtype=np.int64),
    )


@given(st.lists(st.integers(0, 8), min_size=2, max_size=40), st.floats(0.05, 0.95), st.integers(0, 5))
def test_no_series_on_both_sides_and_both_sides_used(owners: list[int], fraction: float, seed: int) -> None:
    configuration = configuration_of(owners)
    mask = calibration_mask(configuration, fraction, seed)
    assert mask.any()
    assert not mask.all()
    if len(set(owners)) > 1:
        assert not set(configuration.series[mask]) & set(configuration.series[~mask])
    np.testing.assert_array_equal(mask, calibration_mask(configuration, fraction, seed))


def test_share_of_series() -> None:
    mask = calibration_mask(configuration_of([owner for owner in range(10) for _ in range(3)]), 0.3, 0)
    assert mask.sum() == 9


def test_other_seeds_and_names_draw_other_series() -> None:
    owners = list(range(30))
    masks = [calibration_mask(configuration_of(owners), 0.5, seed) for seed in range(3)]
    masks.append(calibration_mask(configuration_of(owners, name="y/D/short"), 0.5, 0))
    assert len({mask.tobytes() for mask in masks}) == 4


def test_a_single_series_is_split_by_time() -> None:
    assert calibration_mask(configuration_of([7] * 5), 0.4, 0).tolist() == [True, True, False, False, False]
    backwards = configuration_of([7] * 5).select(np.ones(5, np.bool_))
    shuffled = Configuration(**{**vars(backwards), "contexts": list(backwards.contexts)[::-1]})
    assert calibration_mask(shuffled, 0.4, 0).tolist() == [False, False, False, True, True]


def test_split_partitions_a_suite_and_lists_what_it_cannot_split() -> None:
    suite = Suite(
        "s", (configuration_of([0, 1, 2, 3]), configuration_of([0], name="lonely")), (("old", "gone"),)
    )
    calibration, report = split(suite, fraction=0.25, seed=1)
    assert [(c.name, len(c)) for c in calibration.configurations] == [("x/D/short", 1)]
    assert [(c.name, len(c)) for c in report.configurations] == [("x/D/short", 3), ("lonely", 1)]
    assert calibration.skipped == (("old", "gone"), ("lonely", "too few windows for a calibration side"))
    assert report.skipped == (("old", "gone"),)
    assert calibration.name != report.name


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, 2.0])
def test_a_fraction_outside_0_to_1_is_named(fraction: float) -> None:
    with pytest.raises(TspruneError, match="between 0 and 1"):
        calibration_mask(configuration_of([1, 2]), fraction, 0)
