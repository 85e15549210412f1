"""Calibration and report: choose on one part of a suite, report on the other."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from tsprune.arguments import checked
from tsprune.data.suite import Configuration, Suite

CALIBRATION_FRACTION = 0.5  # of the series


@checked
def calibration_mask(configuration: Configuration, fraction: float, seed: int) -> NDArray[np.bool_]:
    """The windows that calibrate, bool [N]; the others report. No series is on both sides.

    Series are drawn at random, the same ones for the same configuration name, fraction and seed, all variates
    of a multivariate one together. A single series is split by time: its earlier windows
    calibrate. With two windows or more, both sides have some; a single window reports.

    Raises TspruneError unless 0 < fraction < 1.
    """
    entities = configuration.entities
    owners = np.unique(entities)
    if len(owners) > 1:
        rng = np.random.default_rng([seed, zlib.crc32(configuration.name.encode())])
        chosen = rng.permutation(owners)[: _share(len(owners), fraction)]
        return np.isin(entities, chosen)
    # histories of one series grow with time
    together = configuration.together
    order = np.argsort([len(configuration.contexts[rows[0]]) for rows in together], kind="stable")
    mask = np.zeros(len(configuration), dtype=np.bool_)
    for place in order[: _share(len(together), fraction)]:
        mask[together[place]] = True
    return mask


def _share(count: int, fraction: float) -> int:
    return min(max(1, round(fraction * count)), count - 1) if count > 1 else 0


@checked
def split(suite: Suite, *, fraction: float = CALIBRATION_FRACTION, seed: int = 0) -> tuple[Suite, Suite]:
    """(calibration, report): two suites that share no series (by time where there is only one).

    fraction : share of the series that calibrate, per configuration

    A configuration that leaves one side without windows is listed in that side's `skipped`.
    Raises TspruneError unless 0 < fraction < 1.
    """
    masks = [calibration_mask(configuration, fraction, seed) for configuration in suite.configurations]
    return _part(suite, masks, "calibration"), _part(suite, [~mask for mask in masks], "report")


def _part(suite: Suite, masks: list[NDArray[np.bool_]], side: str) -> Suite:
    pairs = list(zip(suite.configurations, masks, strict=True))
    empty = tuple((c.name, f"too few windows for a {side} side") for c, mask in pairs if not mask.any())
    kept = tuple(c.select(mask) for c, mask in pairs if mask.any())
    return Suite(f"{suite.name}:{side}", kept, (*suite.skipped, *empty))
