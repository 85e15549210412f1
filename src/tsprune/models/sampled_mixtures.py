"""Draws from mixtures of distributions in numpy, the same as those of `draws` by the same uniform numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsprune.models.sampled_paths import Floats

_Numbers = NDArray[np.float64]

# how many parameters a distribution has: degrees of freedom, location and scale; location and scale, of the
# logarithm for the last one; count and logits
PARAMETERS = {"student_t": 3, "normal": 2, "log_normal": 2, "negative_binomial": 2}


def mixture_draws(
    components: Sequence[str], weights: Floats, parameters: Floats, numbers: _Numbers
) -> Floats:
    """Draws [B, S, H] from mixtures of `components`, which are distributions of `PARAMETERS`.

    weights : of the K components, [B, S or 1, H, K]; they need not add up to 1
    parameters : of one component after the other, [B, S or 1, H, N]
    numbers : uniform, [B, S, H, 3]: one for the component, two for its draw

    A draw is NaN where a weight or a parameter is not finite.
    """
    which, one, other = np.moveaxis(numbers, -1, 0)
    cumulative = weights.astype(np.float64).cumsum(axis=-1)
    threshold = which * cumulative[..., -1]
    index = np.zeros(which.shape, dtype=np.int64)
    for share in np.moveaxis(cumulative[..., :-1], -1, 0):
        index += share < threshold
    found, first = np.empty(which.shape, dtype=np.float32), 0
    with np.errstate(all="ignore"):
        for number, name in enumerate(components):
            chosen, last = np.nonzero(index == number), first + PARAMETERS[name]
            own = (np.broadcast_to(parameters[..., at], index.shape)[chosen] for at in range(first, last))
            found[chosen] = _DRAWS[name](*own, one[chosen], other[chosen])
            first = last
    broken = ~(np.isfinite(weights).all(axis=-1) & np.isfinite(parameters).all(axis=-1))
    return np.where(broken, np.float32(np.nan), found)


def _student_t(freedom: Floats, location: Floats, scale: Floats, radius: _Numbers, angle: _Numbers) -> Floats:
    """Student-t draws by Bailey's polar method (exact for any df)."""
    power = freedom.astype(np.float64)
    spread = np.expm1(-2 / power * np.log(radius))
    standard: _Numbers = np.sqrt(power * spread) * np.cos(2 * np.pi * angle)
    return location + scale * standard.astype(np.float32)


def _normal(location: Floats, scale: Floats, uniform: _Numbers, _: _Numbers | None = None) -> Floats:
    """Normal draws."""
    from scipy.special import ndtri  # where no distribution needs it, it is not imported

    standard: Floats = ndtri(uniform).astype(np.float32)
    return location + scale * standard


def _log_normal(location: Floats, scale: Floats, uniform: _Numbers, _: _Numbers | None = None) -> Floats:
    """Draws whose logarithm is normal."""
    found: Floats = np.exp(_normal(location, scale, uniform))
    return found


def negative_binomial_counts(
    count: NDArray[np.floating], logits: NDArray[np.floating], rate: _Numbers, number: _Numbers
) -> _Numbers:
    """Poisson draws whose rate is a Gamma draw (shape `count`, scale exp(`logits`))."""
    from scipy import special

    with np.errstate(all="ignore"):
        means = special.gammaincinv(count.astype(np.float64), rate) * np.exp(logits.astype(np.float64))
        # pdtrik is NaN where even the count 0 is more likely than the uniform number
        counts = np.nan_to_num(np.maximum(np.ceil(special.pdtrik(number, means)), 0), posinf=0.0)
    counts[~np.isfinite(means)] = np.nan
    found: _Numbers = counts
    return found


_DRAWS: dict[str, Callable[..., Any]] = {
    "student_t": _student_t,
    "normal": _normal,
    "log_normal": _log_normal,
    "negative_binomial": negative_binomial_counts,
}
