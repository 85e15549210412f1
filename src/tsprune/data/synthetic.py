"""Synthetic time series, for training the bundled checkpoints and for recovery of pruned ones.

Every series is a sum of random parts (calendar seasonality, trend, a stochastic process) with noise, level
shifts, clipping and rounding. No part was fitted to any benchmark; the periods are those of the calendar.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

_Array = NDArray[np.float64]
Content = Literal["all", "periodic", "aperiodic"]

# periods that occur together at one sampling frequency (hourly: day and week, ...), in time steps
# fmt: off
CALENDAR_PERIODS: tuple[tuple[float, ...], ...] = (
    (24, 168), (24, 168), (24,), (48, 336), (96, 672), (96,), (144, 1008), (288, 2016), (7, 30.44, 365.25),
    (7, 365.25), (7,), (365.25,), (12,), (12,), (4,), (52.18,), (5, 21), (60,), (360,), (10,),
)
# fmt: on


def _unit(x: _Array) -> _Array:
    """`x` centred and scaled to unit standard deviation; a constant stays zero."""
    centred = x - x.mean()
    deviation = centred.std()
    return np.asarray(centred / deviation if deviation > 1e-9 else centred)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _harmonic_profile(n: int, rng: np.random.Generator) -> _Array:
    phase, profile = 2 * np.pi * np.arange(n) / n, np.zeros(n)
    decay = rng.uniform(0.3, 1.6)
    for k in range(1, int(rng.integers(2, 9))):
        profile = profile + rng.standard_normal() / k**decay * np.sin(k * phase + rng.uniform(0, 2 * np.pi))
    return profile


def _smooth_profile(n: int, rng: np.random.Generator) -> _Array:
    width = max(1, int(n * rng.uniform(0.03, 0.25)))
    window = np.hanning(width + 2)[1:-1]
    return np.asarray(np.convolve(np.tile(rng.standard_normal(n), 3), window, "same")[n : 2 * n])


def _bump_profile(n: int, rng: np.random.Generator) -> _Array:
    profile = np.zeros(n)
    position = np.arange(n)
    for _ in range(rng.integers(1, 4)):
        centre, width = rng.integers(n), max(1, int(n * rng.uniform(0.04, 0.4)))
        distance = np.minimum((position - centre) % n, (centre - position) % n)
        on_off = rng.random() < 0.5
        shape = distance < width / 2 if on_off else np.exp(-0.5 * (distance / (width / 2 + 0.5)) ** 2)
        profile = profile + rng.uniform(0.3, 1) * shape
    return profile


_PROFILES = (_harmonic_profile, _smooth_profile, _bump_profile)


def _seasonal(period: float, length: int, rng: np.random.Generator) -> _Array:
    samples = max(2, round(period))
    profile = _unit(_PROFILES[rng.integers(len(_PROFILES))](samples, rng))
    phase = np.arange(length) / period * samples + rng.integers(samples)
    return np.asarray(profile[np.floor(phase).astype(int) % samples])


def seasonality(length: int, rng: np.random.Generator) -> _Array:
    """Seasonal part: one calendar family (or random periods), drifting amplitude, weekends."""
    if rng.random() < 0.8:
        periods = CALENDAR_PERIODS[rng.integers(len(CALENDAR_PERIODS))]
    else:
        periods = tuple(_log_uniform(rng, 3, 500) for _ in range(rng.integers(1, 3)))
    total = np.zeros(length)
    for rank, period in enumerate(periods):
        if period > length or (rank > 0 and rng.random() < 0.35):
            continue
        part = _seasonal(period, length, rng) * np.exp(rng.normal(-0.3 * rank, 0.6))
        if rng.random() < 0.3:
            drift = 1 + np.cumsum(rng.standard_normal(length)) * rng.uniform(0.002, 0.02)
            part = part * np.clip(drift, 0.1, 3)
        total += part
    if len(periods) > 1 and rng.random() < 0.3:
        day = (np.arange(length) // periods[0] + rng.integers(7)) % 7
        total = total * (1 + rng.uniform(-0.7, 0.3) * (day >= 5))
    return total


def trend(length: int, rng: np.random.Generator) -> _Array:
    """Straight, piecewise linear, or saturating growth over the whole length."""
    t = np.arange(length) / length
    line = rng.normal(0, 2) * t
    if rng.random() < 0.5:
        for change in rng.uniform(0, 1, rng.integers(1, 5)):
            line = line + np.maximum(t - change, 0) * rng.normal(0, 4)
    if rng.random() < 0.15:
        steepness = _log_uniform(rng, 5, 60)
        line = line + rng.normal(0, 3) / (1 + np.exp(-steepness * (t - rng.uniform(0, 1))))
    return line


def stochastic(length: int, rng: np.random.Generator, *, oscillating: bool = True) -> _Array:
    """Random walk, integrated walk, AR(1) or a damped stochastic oscillator; unit deviation."""
    shocks = rng.standard_normal(length) if rng.random() < 0.8 else rng.standard_t(3, length)
    kind = rng.random() * (1.0 if oscillating else 0.75)
    if kind < 0.4:
        walk = np.cumsum(shocks + rng.normal(0, 0.05))
    elif kind < 0.47:
        walk = np.cumsum(lfilter([1], [1, -rng.uniform(0.8, 0.99)], shocks))
    elif kind < 0.75:
        walk = lfilter([1], [1, -rng.uniform(0.5, 0.995)], shocks)
    else:
        radius, frequency = rng.uniform(0.9, 0.999), 2 * np.pi / rng.uniform(4, 200)
        walk = lfilter([1], [1, -2 * radius * np.cos(frequency), radius**2], shocks)
    return _unit(walk)


def gaussian_process(length: int, rng: np.random.Generator) -> _Array:
    """A smooth Gaussian process (RBF or rational spectrum) by spectral sampling; unit deviation."""
    frequency = np.fft.rfftfreq(length)
    scale = _log_uniform(rng, 3, 300)
    if rng.random() < 0.5:
        spectrum = np.exp(-2 * (np.pi * scale * frequency) ** 2)
    else:
        spectrum = 1 / (1 + (2 * np.pi * scale * frequency) ** 2) ** rng.uniform(0.8, 2)
    noise = rng.standard_normal(frequency.size) + 1j * rng.standard_normal(frequency.size)
    return _unit(np.fft.irfft(np.sqrt(spectrum) * noise, length))


def counts(length: int, rng: np.random.Generator) -> _Array:
    """Counts and intermittent demand: Poisson with a seasonal rate."""
    period = rng.choice([4, 7, 12, 24, 52])
    phase = 2 * np.pi * np.arange(length) / period + rng.uniform(0, 2 * np.pi)
    rate = _log_uniform(rng, 0.03, 30) * (1 + rng.uniform(0, 0.9) * np.sin(phase))
    return _unit(rng.poisson(np.clip(rate, 0, None)).astype(float)) * 1.5


def _corrupted(x: _Array, rng: np.random.Generator) -> _Array:
    length = x.size
    noise = rng.standard_normal(length) if rng.random() < 0.8 else rng.standard_t(3, length)
    x = x + _log_uniform(rng, 0.005, 0.7) * (x.std() + 0.05) * noise
    if rng.random() < 0.12:
        for change in rng.integers(0, length, rng.integers(1, 4)):
            x[change:] += rng.normal(0, 1.2) * x.std()
    if rng.random() < 0.08:
        x = np.maximum(x, np.quantile(x, rng.uniform(0.05, 0.5)))
    if rng.random() < 0.06:
        x = np.round(_unit(x) * rng.uniform(1, 5))
    if rng.random() < 0.05:
        spikes = rng.random(length) < rng.uniform(0.001, 0.02)
        x = x + spikes * rng.normal(0, 4, length) * x.std()
    return x


def periodic_series(length: int, rng: np.random.Generator) -> _Array:
    """One series [length] of seasonal parts alone, additive or multiplicative, and noise."""
    x = seasonality(length, rng)
    if rng.random() < 0.15:
        x = np.exp(np.clip(_unit(x) * rng.uniform(0.3, 1.2), -5, 5))
    return _unit(_corrupted(x, rng))


def aperiodic_series(length: int, rng: np.random.Generator) -> _Array:
    """One series [length] without any period: trends, walks, AR(1), smooth processes, counts."""
    kind = rng.choice(["trended", "stochastic", "smooth", "counts"], p=[0.25, 0.4, 0.2, 0.15])
    x = np.zeros(length)
    if kind == "trended" or rng.random() < 0.45:
        x = x + trend(length, rng)
    if kind == "stochastic" or rng.random() < 0.25:
        x = x + stochastic(length, rng, oscillating=False) * np.exp(rng.normal(0.0, 0.6))
    if kind == "smooth":
        x = x + gaussian_process(length, rng)
    if kind == "counts":
        x = x * 0.2 + _unit(rng.poisson(_log_uniform(rng, 0.03, 30), length).astype(float)) * 1.5
    elif rng.random() < 0.1:
        x = np.exp(np.clip(_unit(x) * rng.uniform(0.3, 1.2), -5, 5))
    return _unit(_corrupted(x, rng))


def one_series(length: int, rng: np.random.Generator) -> _Array:
    """One synthetic series [length] of any kind, with zero mean and unit deviation."""
    kind = rng.choice(
        ["seasonal", "trended", "stochastic", "smooth", "counts", "multiplicative"],
        p=[0.46, 0.13, 0.16, 0.1, 0.07, 0.08],
    )
    x = np.zeros(length)
    if kind in ("seasonal", "trended") or rng.random() < 0.35:
        x = x + seasonality(length, rng)
    if kind == "trended" or rng.random() < 0.45:
        x = x + trend(length, rng)
    if kind == "stochastic" or rng.random() < 0.25:
        x = x + stochastic(length, rng) * np.exp(rng.normal(0.3 if kind == "stochastic" else -0.2, 0.6))
    if kind == "smooth":
        x = x + gaussian_process(length, rng)
    if kind == "counts":
        x = x * 0.2 + counts(length, rng)
    if kind == "multiplicative":
        x = np.exp(np.clip(_unit(x) * rng.uniform(0.3, 1.2), -5, 5))
    return _unit(_corrupted(x, rng))


def series(
    count: int, length: int, rng: np.random.Generator, content: Content = "all"
) -> NDArray[np.float32]:
    """`count` independent synthetic series, [count, length] float32, each standardised.

    content : "all" kinds, only "periodic" ones, or only "aperiodic" ones
    """
    draw = {"all": one_series, "periodic": periodic_series, "aperiodic": aperiodic_series}[content]
    return np.stack([draw(length, rng) for _ in range(count)]).astype(np.float32)
