"""Chaotic systems: series without a season whose motifs nearly return, so copying pays for a while.

The equations are written down here as data and integrated with scipy. (The package `dysts` has many
more, but is slow without numba, which it does not install, and brings scikit-learn and matplotlib.) Systems
"sprott a" to "sprott s" are from J. C. Sprott, Some simple chaotic flows, Phys. Rev. E 50, R647 (1994);
the others are cited beside them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import solve_ivp

from tsprune.atomic import write_whole
from tsprune.data.suite import Suite
from tsprune.data.windows import cut_windows
from tsprune.errors import TspruneError
from tsprune.files import existing_file

PER_PERIOD = 32  # samples of a trajectory in one period
HORIZON = 2 * PER_PERIOD
WINDOWS = 4
LENGTH = 1024 + WINDOWS * HORIZON
TRANSIENT = 20  # periods before the first sample
TRAJECTORIES = 2
_VERSION = 1  # of the numbers: to be raised with every change of them

State = Sequence[float]


@dataclasses.dataclass(frozen=True)
class System:
    """dx/dt = flow(*x) from `start`; `period` is the mean time between the maxima of x[0]."""

    flow: Callable[..., State]
    start: State
    period: float


SYSTEMS: Mapping[str, System] = {
    # E. N. Lorenz, Deterministic nonperiodic flow, J. Atmos. Sci. 20 (1963)
    "lorenz": System(lambda x, y, z: (10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z), (1, 1, 20), 0.973),
    # E. N. Lorenz, Irregularity: a fundamental property of the atmosphere, Tellus 36A (1984)
    "lorenz 84": System(
        lambda x, y, z: (-y * y - z * z - 0.25 * x + 2, x * y - 4 * x * z - y + 1, 4 * x * y + x * z - z),
        (0.5, 1, 1),
        2.37,
    ),
    # O. E. Roessler, An equation for continuous chaos, Phys. Lett. A 57 (1976)
    "roessler": System(lambda x, y, z: (-y - z, x + 0.2 * y, 0.2 + z * (x - 5.7)), (1, 1, 1), 5.86),
    # G. Chen and T. Ueta, Yet another chaotic attractor, Int. J. Bifurc. Chaos 9 (1999)
    "chen": System(
        lambda x, y, z: (35 * (y - x), -7 * x - x * z + 28 * y, x * y - 3 * z), (-5, -5, 20), 0.527
    ),
    # J. Lu and G. Chen, A new chaotic attractor coined, Int. J. Bifurc. Chaos 12 (2002)
    "lu": System(lambda x, y, z: (36 * (y - x), 20 * y - x * z, x * y - 3 * z), (1, 1, 20), 0.584),
    # A. M. Rucklidge, Chaos in models of double convection, J. Fluid Mech. 237 (1992)
    "rucklidge": System(lambda x, y, z: (-2 * x + 6.7 * y - y * z, x, y * y - z), (1, 0, 4.5), 3.01),
    # R. Thomas, Deterministic chaos seen in terms of feedback circuits, Int. J. Bifurc. Chaos 9 (1999)
    "thomas": System(
        lambda x, y, z: (np.sin(y) - 0.18 * x, np.sin(z) - 0.18 * y, np.sin(x) - 0.18 * z), (1, 0, 1.5), 10.0
    ),
    # J. C. Sprott, Chaos and Time-Series Analysis (2003), where Halvorsen's attractor is given
    "halvorsen": System(
        lambda x, y, z: (
            -1.4 * x - 4 * y - 4 * z - y * y,
            -1.4 * y - 4 * z - 4 * x - z * z,
            -1.4 * z - 4 * x - 4 * y - x * x,
        ),
        (-5, 0, 0),
        0.937,
    ),
    # T. Shimizu and N. Morioka, On the bifurcation of a symmetric limit cycle, Phys. Lett. A 76 (1980)
    "shimizu-morioka": System(
        lambda x, y, z: (y, x - 0.85 * y - x * z, x * x - 0.5 * z), (0.1, 0.2, 1), 14.0
    ),
    # L. O. Chua's circuit, in the smooth cubic form of A. S. Huang et al. (1996)
    "chua": System(
        lambda x, y, z: (10 * (y - x**3 / 16 + x / 6), x - y + z, -100 / 7 * y), (0.1, 0.2, 0.1), 2.4
    ),
    # Y. Ueda, Randomly transitional phenomena in the system governed by Duffing's equation (1979);
    # the drive's phase is the third variable
    "duffing": System(lambda x, y, t: (y, x - x**3 - 0.3 * y + 0.5 * np.cos(t), 1.2), (0.5, 0, 0), 5.85),
    "sprott a": System(lambda x, y, z: (y, -x + y * z, 1 - y * y), (0, 5, 0), 8.38),
    "sprott b": System(lambda x, y, z: (y * z, x - y, 1 - x * y), (0.05, 0.05, 0.05), 4.46),
    "sprott c": System(lambda x, y, z: (y * z, x - y, 1 - x * x), (0.05, 0.05, 0.05), 4.37),
    "sprott d": System(lambda x, y, z: (-y, x + z, x * z + 3 * y * y), (0.05, 0.05, 0.05), 5.84),
    "sprott e": System(lambda x, y, z: (y * z, x * x - y, 1 - 4 * x), (0.05, 0.05, 0.05), 6.77),
    "sprott f": System(lambda x, y, z: (y + z, -x + 0.5 * y, x * x - z), (0.05, 0.05, 0.05), 5.52),
    "sprott g": System(lambda x, y, z: (0.4 * x + z, x * z - y, -x + y), (0.05, 0.05, 0.05), 5.79),
    "sprott h": System(lambda x, y, z: (-y + z * z, x + 0.5 * y, x - z), (0.05, 0.05, 0.05), 5.18),
    "sprott k": System(lambda x, y, z: (x * y - z, x - y, x + 0.3 * z), (0.05, 0.05, 0.05), 7.08),
    "sprott m": System(lambda x, y, z: (-z, -x * x - y, 1.7 + 1.7 * x + y), (0.05, 0.05, 0.05), 5.36),
    "sprott n": System(lambda x, y, z: (-2 * y, x + z * z, 1 + y - 2 * z), (0.05, 0.05, 0.05), 4.83),
    "sprott r": System(lambda x, y, z: (0.9 - y, 0.4 + z, x * y - z), (0.05, 0.05, 0.05), 7.02),
    "sprott s": System(lambda x, y, z: (-x - 4 * y, x + z * z, 1 + x), (0.05, 0.05, 0.05), 3.16),
}


def trajectory(name: str, *, seed: int = 0, length: int = LENGTH) -> NDArray[np.float32]:
    """x[0] of a system, `PER_PERIOD` samples a period, after `TRANSIENT` periods: float32 [length].

    seed : of a small change of the start, which chaos makes another trajectory

    Raises TspruneError for a system that is not in `SYSTEMS`.
    """
    if name not in SYSTEMS:
        raise TspruneError(f"unknown chaotic system {name!r}; there are: {', '.join(SYSTEMS)}")
    system = SYSTEMS[name]
    start = np.asarray(system.start, float)
    rng = np.random.default_rng([seed, len(name), *map(ord, name)])
    start = start + 0.01 * rng.standard_normal(len(start))
    times = system.period * (TRANSIENT + np.arange(length) / PER_PERIOD)
    solved = solve_ivp(
        lambda _, x: system.flow(*x),
        (0, times[-1]),
        start,
        method="DOP853",
        t_eval=times,
        rtol=1e-8,
        atol=1e-8,
    )
    if not solved.success or np.abs(solved.y).max() > 1e6:
        raise TspruneError(f"the chaotic system {name} left its attractor (seed {seed})")
    return np.asarray(solved.y[0], dtype=np.float32)


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tsprune"


def _trajectories(names: Sequence[str], seed: int, directory: Path) -> dict[str, NDArray[np.float32]]:
    """[TRAJECTORIES, LENGTH] of each system, read from `directory` or integrated and written there."""
    what = repr((_VERSION, tuple(names), seed, TRAJECTORIES, LENGTH, PER_PERIOD, TRANSIENT))
    path = directory / f"chaos-{hashlib.sha256(what.encode()).hexdigest()[:16]}.npz"
    try:
        with np.load(existing_file(path, "cache"), allow_pickle=False) as kept:
            found = {name: kept[name] for name in names}
        if all(x.shape == (TRAJECTORIES, LENGTH) for x in found.values()):
            return found
    except (TspruneError, OSError, KeyError, ValueError, zipfile.BadZipFile):
        pass  # nothing there, or nothing that can be used: it is made again
    made: dict[str, Any] = {  # numpy's other keyword arguments are no arrays
        name: np.stack([trajectory(name, seed=seed * TRAJECTORIES + i) for i in range(TRAJECTORIES)])
        for name in names
    }
    content = io.BytesIO()
    np.savez_compressed(content, **made)
    with contextlib.suppress(TspruneError):  # where nothing can be kept, it is made again next time
        write_whole(path, content.getvalue())
    return made


def chaos(systems: Sequence[str] | None = None, *, seed: int = 0, cache: Path | None = None) -> Suite:
    """Windows of chaotic trajectories: one configuration a system, e.g. "lorenz/H/short".

    systems : names in `SYSTEMS`; None takes all
    seed : the same gives the same trajectories (on one platform: chaos makes much of the last bit)
    cache : where trajectories are kept (tsprune's directory in the user's cache by default)

    Each of two trajectories gives 4 windows of two periods (64 steps). Their "hour" is a 32nd of a period.

    Raises TspruneError for an unknown system.
    """
    names = list(SYSTEMS) if systems is None else list(systems)
    for name in names:
        if name not in SYSTEMS:
            raise TspruneError(f"unknown chaotic system {name!r}; there are: {', '.join(SYSTEMS)}")
    configurations = []
    for name, series in _trajectories(names, seed, cache or _cache()).items():
        configuration, _ = cut_windows(
            list(series),
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
