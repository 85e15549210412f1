"""The readout at the one position that a forecast uses, where upstream computes it at all of them.

Fewer rows may make a matrix product take another way, with other last bits. Whether they do depends on the
processor and, rarely, on the values. So the clean pass, which computes everything, compares the two on the
stream itself and on `TRIALS` random streams of its shape and size, and only what agreed to the last bit on
all of them is computed this way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from torch import Tensor

from tsprune.anatomy import Anatomy
from tsprune.models.substitution import Forward
from tsprune.replay.trials import random_like
from tsprune.replay.values import same

TRIALS = 4


@dataclasses.dataclass(frozen=True)
class Reading:
    """Modules from a stream [B, T, D] to [B, T, ...] of which only `position` of T is used.

    paths : of the modules; none if upstream uses more of them
    """

    paths: tuple[str, ...]
    position: int

    @classmethod
    def of(cls, anatomy: Anatomy, known: Iterable[str]) -> Reading:
        """That of a model whose modules outside of blocks are `known`."""
        readout = anatomy.readout
        if readout is None or not readout.only_position:
            return cls((), -1)
        first = {*readout.modules[:1], *readout.others}  # later ones read what the first returned
        return cls(tuple(path for path in known if path in first), readout.position)

    def at(self, tensor: Tensor) -> Tensor:
        """[B, T, ...] -> [B, 1, ...]"""
        place = range(tensor.shape[1])[self.position]
        return tensor[:, place : place + 1]

    def comparing(self, recording: Forward, original: Forward, verdicts: list[bool]) -> Forward:
        """`recording`, noting whether `original` at the position alone gives the same there."""

        def forward(stream: Tensor) -> Tensor:
            output: Tensor = recording(stream)
            verdicts.append(same(self.at(output), original(self.at(stream))))
            if all(verdicts):
                others = (random_like(stream, seed) for seed in range(TRIALS))
                verdicts.extend(same(self.at(original(one)), original(self.at(one))) for one in others)
            return output

        return forward

    def alone(self, original: Forward) -> Forward:
        """Computes the position; the others, which nobody looks at, are views of it."""

        def forward(stream: Tensor) -> Tensor:
            output: Tensor = original(self.at(stream))
            return output.expand(-1, stream.shape[1], *output.shape[2:])

        return forward
