"""Chaotic trajectories: series without a season whose motifs nearly recur, so that copying works for a while.

Chaos amplifies rounding: on two kinds of processor a trajectory agrees for a few periods only. Therefore the
trajectories are embedded; scripts/build_chaos.py makes the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tsprune.arguments import checked
from tsprune.data.chaos.systems import LENGTH, PER_PERIOD, SYSTEMS, check_known, trajectory
from tsprune.data.suite import Suite
from tsprune.data.windows import cut_windows

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "CHAOS_FILE", "HORIZON", "LENGTH", "PER_PERIOD", "SYSTEMS", "chaos", "trajectory", "trajectory_table",
]  # fmt: skip

CHAOS_FILE = Path(__file__).with_name("chaos.parquet")
HORIZON = 2 * PER_PERIOD
WINDOWS = 4
TRAJECTORIES = 2  # of each system


@checked
def chaos(systems: Sequence[str] | None = None, *, seed: int = 0) -> Suite:
    """Windows of chaotic trajectories: one configuration per system, e.g. "lorenz/H/short".

    systems : names in `SYSTEMS`; None takes all
    seed : 0 takes the embedded trajectories, the same on every machine; any other integrates new ones (some
        seconds), which depend on the processor (see `trajectory`)

    Each of two trajectories gives 4 windows of two periods (64 steps of a 32nd of a period).

    Raises TspruneError for an unknown system.
    """
    names = list(SYSTEMS) if systems is None else list(systems)
    for name in names:
        check_known(name)
    found = _embedded() if seed == 0 else {name: integrated(name, seed) for name in names}
    configurations = []
    for name in names:
        configuration, _ = cut_windows(
            list(found[name]),
            name=f"{name.replace(' ', '_')}/H/short",
            freq="H",
            horizon=HORIZON,
            season=PER_PERIOD,
            windows=WINDOWS,
            domain="Chaos",
        )
        assert configuration is not None
        configurations.append(configuration)
    return Suite("chaos", tuple(configurations))


def integrated(name: str, seed: int) -> NDArray[np.float32]:
    """New trajectories of one system for a seed: float32 [TRAJECTORIES, LENGTH]."""
    return np.stack([trajectory(name, seed=seed * TRAJECTORIES + i) for i in range(TRAJECTORIES)])


def trajectory_table() -> pa.Table:
    """The embedded file, one row per trajectory: system, seed (of `trajectory`), values, source, provenance,
    licence."""
    import pyarrow.parquet as pq  # 0.1 s

    return pq.read_table(CHAOS_FILE)


def _embedded() -> Mapping[str, NDArray[np.float32]]:
    """System -> its embedded trajectories, float32 [TRAJECTORIES, LENGTH]."""
    table = trajectory_table()
    by_system: dict[str, list[NDArray[np.float32]]] = {}
    for name, values in zip(table["system"].to_pylist(), table["values"], strict=True):
        by_system.setdefault(name, []).append(values.values.to_numpy())
    return {name: np.stack(rows) for name, rows in by_system.items()}
