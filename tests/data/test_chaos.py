"""Chaotic trajectories: on their attractors, sensitive, without a season, and the same everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tsprune.data import chaos
from tsprune.data.chaos import CHAOS_FILE, HORIZON, LENGTH, PER_PERIOD, SYSTEMS, trajectory, trajectory_table
from tsprune.data.pocket import content_hash
from tsprune.errors import TspruneError

CONTENT = "45524b8dc76a2e1528f4d7db9c3ebdb3e3eafc22e5e89a5c57aeb8b5071b9dcd"
WINDOWS = "3cea5109d8b82b077752ce4d0919741903a3d20a34091a73480349f7e1df4d91"


def embedded(name: str) -> list[NDArray[np.float64]]:
    """The trajectories of one system, [LENGTH] each."""
    return [np.array(row["values"]) for row in trajectory_table().to_pylist() if row["system"] == name]


def test_there_are_at_least_twenty() -> None:
    assert len(SYSTEMS) >= 20


@pytest.mark.parametrize("name", SYSTEMS)
def test_trajectories_stay_and_move_at_their_period(name: str) -> None:
    """None settles (half of the variation is in its second half too) or escapes."""
    for x in embedded(name):
        assert np.isfinite(x).all()
        early, late = np.split(x, 2)
        assert 0.5 < late.std() / early.std() < 2
        maxima = np.sum((x[1:-1] > x[:-2]) & (x[1:-1] >= x[2:]))
        assert PER_PERIOD / 2 < len(x) / maxima < 2 * PER_PERIOD


def test_the_lorenz_attractor_is_the_known_one() -> None:
    """Its x has mean 0 by symmetry and standard deviation 7.9; it is unlike another start's soon."""
    one, other = embedded("lorenz")
    assert np.concatenate([one, other]).std() == pytest.approx(7.93, rel=0.05)
    assert np.abs(one).max() < 20.5
    assert np.corrcoef(one, other)[0, 1] < 0.5


def test_content_is_the_recorded_one() -> None:
    assert content_hash(trajectory_table()) == CONTENT
    assert CHAOS_FILE.stat().st_size <= 2**20


def test_windows_are_the_recorded_ones() -> None:
    # what is measured on them is comparable between versions and machines only while this holds
    assert chaos().fingerprint == WINDOWS
    assert len(chaos()) == 8 * len(SYSTEMS)


def test_the_embedded_trajectories_are_those_of_the_equations() -> None:
    """On every processor, for the first of 40 periods: later, rounding makes another trajectory.

    By the end of it, the most chaotic system (Chen's) has made some 1e-5 of a rounding error at the start.
    """
    for row in trajectory_table().to_pylist():
        values = np.asarray(row["values"], np.float32)
        assert values.shape == (LENGTH,)
        live = trajectory(row["system"], seed=row["seed"], length=PER_PERIOD)
        assert np.abs(live - values[:PER_PERIOD]).max() < 0.01 * values.std(), row["system"]


def test_a_suite_has_the_windows_of_its_systems() -> None:
    suite = chaos(["sprott b", "lorenz"])
    assert [c.name for c in suite.configurations] == ["sprott_b/H/short", "lorenz/H/short"]
    assert len(suite) == 16
    lorenz = suite.configurations[1]
    first, _ = embedded("lorenz")
    np.testing.assert_array_equal(np.concatenate([lorenz.contexts[3], lorenz.targets[3]]), first)
    assert lorenz.targets.shape == (8, HORIZON)
    assert len(lorenz.contexts[0]) == LENGTH - 4 * HORIZON


def test_another_seed_is_integrated_anew() -> None:
    lorenz = chaos(["lorenz"], seed=1).configurations[0]
    np.testing.assert_array_equal(
        np.concatenate([lorenz.contexts[3], lorenz.targets[3]]), trajectory("lorenz", seed=2)
    )


def test_unknown_systems_are_named() -> None:
    for seed in (0, 1):
        with pytest.raises(TspruneError, match="lorenz"):
            chaos(["lorentz"], seed=seed)
