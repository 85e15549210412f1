"""Sampling of patch after patch, each in a pass over all of its path, as Moirai-MoE does it, in numpy."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from tsprune.models.sampled_horizon import History, HorizonSampling
from tsprune.models.sampled_mixtures import mixture_draws
from tsprune.models.sampled_paths import Floats, Graph, drawn_uniform

_ROWS = 128  # paths that are run together: each is a whole sequence


@dataclasses.dataclass(frozen=True)
class PassSampling(HorizonSampling):
    """How paths are drawn patch by patch, each scaled by all values before it, drawn ones included."""

    kind: ClassVar[str] = "passes"

    def together(self, horizon: int) -> int:
        return max(1, _ROWS // self.samples)

    def paths(self, series: Sequence[Floats], horizon: int, encode: Graph, step: Graph) -> Floats:
        history, streams = self.history(series), self.streams(series)
        parts: list[Floats] = []
        for number in range(-(-horizon // self.patch)):
            if number:
                history = self._after(history, parts[-1])
            rows = [self._distributions(part, encode) for part in _chunks(history)]
            # of each series at first, then of each path
            weights, parameters, location, scale = (
                np.concatenate(one).reshape(len(series), -1, *one[0].shape[1:])
                for one in zip(*rows, strict=True)
            )
            numbers = drawn_uniform(streams, (self.samples, self.patch, 3))
            found = mixture_draws(self.components, weights, parameters, numbers)
            parts.append(found * scale + location)
        return np.concatenate(parts, axis=2)[..., :horizon]

    def _distributions(self, history: History, encode: Graph) -> tuple[Floats, Floats, Floats, Floats]:
        """Of the patch after each row: weights and parameters [B, P, n], location and scale [B, 1]."""
        patches, location, scale = self.patches(history)
        weights, parameters = encode(patches, history.real, history.time)
        return weights, parameters, location, scale

    def _after(self, history: History, drawn: Floats) -> History:
        """The history of all paths, after a patch [B, S, P] of each."""
        flat = drawn.reshape(-1, self.patch)
        times = len(flat) // len(history.values)  # before the second patch, paths share their history
        values, known, real, time = history.rows(np.repeat(np.arange(len(history.values)), times))
        return History(
            np.concatenate([values, flat], axis=1),
            np.concatenate([known, np.ones_like(flat, dtype=np.bool_)], axis=1),
            np.concatenate([real, np.ones_like(real[:, :1])], axis=1),
            np.concatenate([time, time[:, -1:] + 1], axis=1),
        )


def _chunks(history: History) -> list[History]:
    starts = range(0, len(history.values), _ROWS)
    return [history.rows(slice(start, start + _ROWS)) for start in starts]
