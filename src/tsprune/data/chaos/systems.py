"""Chaotic systems as data, and their integration with scipy.

(The package `dysts` has many more systems, but is slow without numba, and needs scikit-learn and matplotlib.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tsprune.errors import TspruneError

PER_PERIOD = 32  # samples of a trajectory in one period
LENGTH = 40 * PER_PERIOD
TRANSIENT = 20  # periods before the first sample

State = Sequence[float]

SPROTT = "J. C. Sprott, Some simple chaotic flows, Phys. Rev. E 50, R647 (1994)"


@dataclasses.dataclass(frozen=True)
class System:
    """dx/dt = flow(*x) from `start`; `period` is the mean time between the maxima of x[0].

    reference : where the equations were published
    """

    flow: Callable[..., State]
    start: State
    period: float
    reference: str = SPROTT


SYSTEMS: Mapping[str, System] = {
    "lorenz": System(
        lambda x, y, z: (10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z),
        (1, 1, 20),
        0.973,
        "E. N. Lorenz, Deterministic nonperiodic flow, J. Atmos. Sci. 20 (1963)",
    ),
    "lorenz 84": System(
        lambda x, y, z: (-y * y - z * z - 0.25 * x + 2, x * y - 4 * x * z - y + 1, 4 * x * y + x * z - z),
        (0.5, 1, 1),
        2.37,
        "E. N. Lorenz, Irregularity: a fundamental property of the atmosphere, Tellus 36A (1984)",
    ),
    "roessler": System(
        lambda x, y, z: (-y - z, x + 0.2 * y, 0.2 + z * (x - 5.7)),
        (1, 1, 1),
        5.86,
        "O. E. Roessler, An equation for continuous chaos, Phys. Lett. A 57 (1976)",
    ),
    "chen": System(
        lambda x, y, z: (35 * (y - x), -7 * x - x * z + 28 * y, x * y - 3 * z),
        (-5, -5, 20),
        0.527,
        "G. Chen and T. Ueta, Yet another chaotic attractor, Int. J. Bifurc. Chaos 9 (1999)",
    ),
    "lu": System(
        lambda x, y, z: (36 * (y - x), 20 * y - x * z, x * y - 3 * z),
        (1, 1, 20),
        0.584,
        "J. Lu and G. Chen, A new chaotic attractor coined, Int. J. Bifurc. Chaos 12 (2002)",
    ),
    "rucklidge": System(
        lambda x, y, z: (-2 * x + 6.7 * y - y * z, x, y * y - z),
        (1, 0, 4.5),
        3.01,
        "A. M. Rucklidge, Chaos in models of double convection, J. Fluid Mech. 237 (1992)",
    ),
    "thomas": System(
        lambda x, y, z: (np.sin(y) - 0.18 * x, np.sin(z) - 0.18 * y, np.sin(x) - 0.18 * z),
        (1, 0, 1.5),
        10.0,
        "R. Thomas, Deterministic chaos seen in terms of feedback circuits, Int. J. Bifurc. Chaos 9 (1999)",
    ),
    "halvorsen": System(
        lambda x, y, z: (
            -1.4 * x - 4 * y - 4 * z - y * y,
            -1.4 * y - 4 * z - 4 * x - z * z,
            -1.4 * z - 4 * x - 4 * y - x * x,
        ),
        (-5, 0, 0),
        0.937,
        "J. C. Sprott, Chaos and Time-Series Analysis (2003), where Halvorsen's attractor is given",
    ),
    "shimizu-morioka": System(
        lambda x, y, z: (y, x - 0.85 * y - x * z, x * x - 0.5 * z),
        (0.1, 0.2, 1),
        14.0,
        "T. Shimizu and N. Morioka, On the bifurcation of a symmetric limit cycle, Phys. Lett. A 76 (1980)",
    ),
    "chua": System(
        lambda x, y, z: (10 * (y - x**3 / 16 + x / 6), x - y + z, -100 / 7 * y),
        (0.1, 0.2, 0.1),
        2.4,
        "L. O. Chua's circuit, in the smooth cubic form of A. S. Huang et al. (1996)",
    ),
    # the drive's phase is the third variable
    "duffing": System(
        lambda x, y, t: (y, x - x**3 - 0.3 * y + 0.5 * np.cos(t), 1.2),
        (0.5, 0, 0),
        5.85,
        "Y. Ueda, Randomly transitional phenomena in the system governed by Duffing's equation (1979)",
    ),
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


def check_known(name: str) -> None:
    """TspruneError for a system that is not in `SYSTEMS`."""
    if name not in SYSTEMS:
        raise TspruneError(f"unknown chaotic system {name!r}; there are: {', '.join(SYSTEMS)}")


def trajectory(name: str, *, seed: int = 0, length: int = LENGTH) -> NDArray[np.float32]:
    """x[0] of a system, `PER_PERIOD` samples per period, after `TRANSIENT` periods: float32 [length].

    seed : of a small change of the start, which leads to another trajectory

    The result depends on the processor: libraries round differently, and after a few periods trajectories
    have diverged. `chaos()` has trajectories that are the same everywhere.

    Raises TspruneError for a system that is not in `SYSTEMS`.
    """
    check_known(name)
    system = SYSTEMS[name]
    start = np.asarray(system.start, float)
    rng = np.random.default_rng([seed, len(name), *map(ord, name)])
    start = start + 0.01 * rng.standard_normal(len(start))
    times = system.period * (TRANSIENT + np.arange(length) / PER_PERIOD)
    from scipy.integrate import solve_ivp  # slow to import, and only needed where trajectories are made anew

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
