"""How an exported model draws paths: random numbers of a window, and the data that a loop in numpy needs."""

from __future__ import annotations

import abc
import dataclasses
import zlib
from collections.abc import Callable, Mapping, Sequence
from pkgutil import resolve_name
from typing import Any, ClassVar, Self, cast

import numpy as np
from numpy.typing import NDArray

from tsprune.arguments import shown

Floats = NDArray[np.float32]
Graph = Callable[..., Sequence[Any]]  # of arrays in the order of its inputs

_SMALLEST = 1e-12  # keeps uniform numbers off 0 and 1, where inverse distribution functions are infinite
_TYPES = {
    "int": ("int",),
    "bool": ("bool",),
    "float": ("float", "int"),
    "str": ("str",),
    "tuple[str, ...]": ("tuple",),
}
_KINDS = {
    "tokens": "tsprune.models.sampled_tokens:TokenSampling",
    "patches": "tsprune.models.sampled_patches:PatchSampling",
    "horizon": "tsprune.models.sampled_horizon:HorizonSampling",
    "passes": "tsprune.models.sampled_passes:PassSampling",
}


def stream_seed(context: Floats, seed: int) -> tuple[int, int]:
    """The seed of a window's stream of random numbers: of its values, so that any batch gives it the same."""
    return seed, zlib.crc32(np.ascontiguousarray(context).tobytes())


def drawn_uniform(streams: Sequence[np.random.Generator], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The next numbers of each stream, [B, *shape], inside (0, 1)."""
    numbers = np.stack([stream.random(shape) for stream in streams])
    return np.clip(numbers, _SMALLEST, 1 - _SMALLEST, out=numbers)


@dataclasses.dataclass(frozen=True)
class PathSampling(abc.ABC):
    """How paths are drawn.

    samples, seed : paths of a series, and the seed of their draws
    steps : of one pass of the network
    """

    kind: ClassVar[str]
    samples: int
    seed: int
    steps: int

    @classmethod
    def of(cls, stated: Mapping[str, Any]) -> Self:
        """From the fields of one; ValueError or TypeError if they are not those of one."""
        values: dict[str, Any] = {}
        for key, value in stated.items():
            values[key] = tuple(value) if isinstance(value, list) else value
        found = cls(**values)
        for field in dataclasses.fields(cls):
            value = getattr(found, field.name)
            if type(value).__name__ not in _TYPES[str(field.type)]:
                raise ValueError(f"{field.name} of the sampling is {shown(value)}")
        if min(found.samples, found.steps, *found.counts()) < 1:
            raise ValueError("a count of the sampling is too small")
        if problem := found.problem():
            raise ValueError(f"{problem} of the sampling cannot be")
        return found

    def stated(self) -> dict[str, Any]:
        """The fields and the kind, as `sampling_of` reads them."""
        return {"kind": self.kind, **dataclasses.asdict(self)}

    def streams(self, series: Sequence[Floats]) -> list[np.random.Generator]:
        """The streams of random numbers of series [T] each."""
        return [np.random.Generator(np.random.PCG64(stream_seed(values, self.seed))) for values in series]

    def counts(self) -> tuple[int, ...]:
        """Fields that are at least 1."""
        return ()

    def problem(self) -> str:
        """Names of the fields whose values contradict each other or the kind; "" if there are none."""
        return ""

    @abc.abstractmethod
    def together(self, horizon: int) -> int:
        """How many series are best forecast together."""

    @abc.abstractmethod
    def paths(self, series: Sequence[Floats], horizon: int, encode: Graph, step: Graph) -> Floats:
        """Paths [B, S, H] of B series [T] each, NaN where a value is missing.

        encode, step : the graph that sees the history, and that of the next steps if there is one
        """


def sampling_of(stated: Mapping[str, Any]) -> PathSampling:
    """From the fields of one and its kind; ValueError or TypeError if they are not those of one."""
    name = stated.get("kind", "tokens")
    if not isinstance(name, str) or name not in _KINDS:
        raise ValueError(f"the kind of the sampling is {shown(name)}")
    kind = cast(type[PathSampling], resolve_name(_KINDS[name]))
    return kind.of({key: value for key, value in stated.items() if key != "kind"})
