"""A torch module to be written as a graph: its inputs, and which of their dimensions may change."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from torch import Tensor, nn


@dataclasses.dataclass(frozen=True)
class GraphInput:
    """An example of an input, and the names of the dimensions that may change."""

    example: Tensor
    sizes: Mapping[int, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class GraphProgram:
    """A module, its inputs by name in their order, and the names of its outputs.

    limits : the least and the largest size of each dimension that may change, by name
    """

    module: nn.Module
    inputs: Mapping[str, GraphInput]
    outputs: tuple[str, ...]
    limits: Mapping[str, tuple[int, int]]
