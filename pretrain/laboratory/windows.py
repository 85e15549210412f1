"""The windows that every model of the laboratory is measured on; none of them is trained on.

- pocket : the embedded suite of real series, whole, and a sample of it for what takes many forecasts
- gift-eval : a sample of the GIFT-Eval copy that TSPRUNE_SHARED holds, where there is one
- periodic, aperiodic : synthetic series of seeds that no training has
- chaos : trajectories of chaotic systems
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np

from tsprune.data import Configuration, Suite, chaos, gift_eval, pocket
from tsprune.data.synthetic import Content, series
from tsprune.errors import TspruneError

PER_CONFIGURATION = 12
_GIFT_EVAL_PER_CONFIGURATION = 8
_CHAOS_PER_CONFIGURATION = 1
_SEED = 2602_01605  # trainings have small ones
_SYNTHETIC = 64
_CONTEXT, _HORIZON = 512, 64


@dataclasses.dataclass(frozen=True)
class Windows:
    """Suites by what they are for.

    whole : for what takes few forecasts
    sample : of the same series, for what takes many
    others : only scored, with their traits
    layers : only scored, and layers ablated
    skipped : (suite, reason)
    """

    whole: Suite
    sample: Suite
    others: tuple[Suite, ...]
    layers: tuple[Suite, ...]
    skipped: tuple[tuple[str, str], ...]

    def suites(self) -> tuple[Suite, ...]:
        """All suites that are scored."""
        return (self.whole, *self.others, *self.layers)


def every_window() -> Windows:
    """The windows that are there."""
    whole, skipped = pocket(), []
    others, layers = [_synthetic("periodic"), _synthetic("aperiodic")], []
    try:
        others.append(dataclasses.replace(evenly(chaos(), _CHAOS_PER_CONFIGURATION), name="chaos"))
    except TspruneError as error:
        skipped.append(("chaos", str(error)))
    root = Path(os.environ.get("TSPRUNE_SHARED", "")) / "data" / "gift_eval"
    if "TSPRUNE_SHARED" in os.environ and root.is_dir():
        layers.append(
            dataclasses.replace(evenly(gift_eval(root), _GIFT_EVAL_PER_CONFIGURATION), name="gift-eval")
        )
    else:
        skipped.append(("gift-eval", "TSPRUNE_SHARED names no folder with data/gift_eval"))
    return Windows(whole, evenly(whole, PER_CONFIGURATION), tuple(others), tuple(layers), tuple(skipped))


def evenly(suite: Suite, per_configuration: int) -> Suite:
    """The suite with at most so many windows of each configuration, evenly spread over its windows."""
    return dataclasses.replace(
        suite, configurations=tuple(_spread(c, per_configuration) for c in suite.configurations)
    )


def _spread(configuration: Configuration, count: int) -> Configuration:
    places = np.linspace(0, len(configuration) - 1, min(count, len(configuration))).round().astype(int)
    keep = np.zeros(len(configuration), dtype=np.bool_)
    keep[places] = True
    return configuration.select(keep)


def _synthetic(content: Content) -> Suite:
    """One configuration of synthetic series without a known season: Seasonal Naive repeats the last value."""
    values = series(_SYNTHETIC, _CONTEXT + _HORIZON, np.random.default_rng([_SEED, len(content)]), content)
    configuration = Configuration(
        name=f"{content}/H/short",
        freq="H",
        horizon=_HORIZON,
        season=1,
        contexts=list(values[:, :_CONTEXT]),
        targets=values[:, _CONTEXT:],
        series=np.arange(len(values)),
    )
    return Suite(content, (configuration,))
