"""Chaotic trajectories: on their attractors, sensitive, without a season, and kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tsprune.data import chaos
from tsprune.data.chaos import HORIZON, LENGTH, PER_PERIOD, SYSTEMS, trajectory
from tsprune.errors import TspruneError


def test_there_are_at_least_twenty() -> None:
    assert len(SYSTEMS) >= 20


@pytest.mark.parametrize("name", SYSTEMS)
def test_trajectories_stay_and_move_at_their_period(name: str) -> None:
    """Neither settles (half of the variation is in its second half too) nor escapes."""
    x = trajectory(name, length=640).astype(np.float64)
    assert np.isfinite(x).all()
    early, late = x[:320].std(), x[320:].std()
    assert 0.3 < late / early < 3
    maxima = np.sum((x[1:-1] > x[:-2]) & (x[1:-1] >= x[2:]))
    assert PER_PERIOD / 2 < 640 / maxima < 2 * PER_PERIOD


def test_the_lorenz_attractor_is_the_known_one() -> None:
    """Its x has mean 0 by symmetry and standard deviation 7.9; it is unlike another start's soon."""
    one, other = (trajectory("lorenz", seed=seed, length=2000) for seed in (0, 1))
    assert one.std() == pytest.approx(7.93, rel=0.05)
    assert np.abs(one).max() < 20.5
    assert np.corrcoef(one, other)[0, 1] < 0.5


def test_a_suite_is_cached_and_the_same(tmp_path: Path) -> None:
    first = chaos(["lorenz", "sprott b"], cache=tmp_path)
    (kept,) = tmp_path.iterdir()
    written = kept.stat().st_mtime_ns
    assert chaos(["lorenz", "sprott b"], cache=tmp_path).fingerprint == first.fingerprint
    assert kept.stat().st_mtime_ns == written
    kept.write_bytes(b"torn")
    assert chaos(["lorenz", "sprott b"], cache=tmp_path).fingerprint == first.fingerprint
    assert chaos(["lorenz", "sprott b"], seed=1, cache=tmp_path).fingerprint != first.fingerprint
    assert [c.name for c in first.configurations] == ["lorenz/H/short", "sprott_b/H/short"]
    assert len(first) == 16
    c = first.configurations[0]
    np.testing.assert_array_equal(np.concatenate([c.contexts[3], c.targets[3]]), trajectory("lorenz"))
    assert c.targets.shape == (8, HORIZON)
    assert len(c.contexts[0]) == LENGTH - 4 * HORIZON


def test_unknown_systems_are_named(tmp_path: Path) -> None:
    with pytest.raises(TspruneError, match="lorenz"):
        chaos(["lorentz"], cache=tmp_path)


def test_where_nothing_can_be_kept_it_is_made_all_the_same(tmp_path: Path) -> None:
    occupied = tmp_path / "file"
    occupied.write_bytes(b"")
    assert len(chaos(["lorenz"], cache=occupied / "cache")) == 8
    assert occupied.read_bytes() == b""
