"""The readout computed only at the position that a forecast uses, where upstream computes all positions.

A matrix product of fewer rows may round differently, depending on the processor and, rarely, on the values.
The clean pass therefore computes both ways, on the stream itself and on random streams of its shape and
scale (`_trials`). Only modules that agree to the last bit on all of them are computed this way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from torch import Tensor

from tsprune.anatomy import Anatomy
from tsprune.models.substitution import Forward
from tsprune.replay.comparisons import same
from tsprune.replay.values import random_like

_FEW, _MANY, _VALUES = 4, 64, 2**15


@dataclasses.dataclass(frozen=True)
class Reading:
    """Modules that map a stream [B, T, D] to [B, T, ...], of which only `position` of T is used.

    paths : of the modules; empty if upstream uses more positions
    """

    paths: tuple[str, ...]
    position: int

    @classmethod
    def of(cls, anatomy: Anatomy, known: Iterable[str]) -> Reading:
        """The reading of a model whose modules outside of blocks are `known`."""
        readout = anatomy.readout
        if readout is None or not readout.only_position:
            return cls((), -1)
        first = {*readout.modules[:1], *readout.others}  # later ones read the output of the first
        return cls(tuple(path for path in known if path in first), readout.position)

    def at(self, tensor: Tensor) -> Tensor:
        """[B, T, ...] -> [B, 1, ...]"""
        place = range(tensor.shape[1])[self.position]
        return tensor[:, place : place + 1]

    def comparing(self, recording: Forward, original: Forward, verdicts: list[bool]) -> Forward:
        """`recording`, which also appends to `verdicts` whether `original` agrees at the position alone."""

        def forward(stream: Tensor) -> Tensor:
            output: Tensor = recording(stream)
            verdicts.append(same(self.at(output), original(self.at(stream))))
            if all(verdicts):
                others = (random_like(stream, seed) for seed in range(_trials(stream)))
                verdicts.append(all(same(self.at(original(one)), original(self.at(one))) for one in others))
            return output

        return forward

    def alone(self, original: Forward) -> Forward:
        """Computes only the position; the other positions, which are unused, are views of it."""

        def forward(stream: Tensor) -> Tensor:
            output: Tensor = original(self.at(stream))
            return output.expand(-1, stream.shape[1], *output.shape[2:])

        return forward


def _trials(stream: Tensor) -> int:
    """The number of random streams: more of small ones.

    The last values of an array that does not fill a processor's vectors may be computed by another function,
    which rounds one value in 25 differently. One pass of a small stream then agrees two times in three.
    """
    return max(_FEW, min(_MANY, _VALUES // max(1, stream.numel())))
