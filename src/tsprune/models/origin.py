"""The history of a pruned model: its original, the method of pruning, and the measurements."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from tsprune.anatomy import Component


@dataclasses.dataclass(frozen=True)
class Recovery:
    """How the original model was distilled into a pruned one.

    teacher : name of the teacher
    components : number of removed components at that time
    steps, histories : training steps, and synthetic histories in them
    best_step : step whose weights were taken
    metric : by which it was chosen, on the calibration series of a suite
    suite, windows : name of that suite, and number of windows in its calibration series
    score_before, score_after : the metric there, relative to Seasonal Naive
    recipe : everything else that training depends on
    """

    teacher: str
    components: int
    steps: int
    histories: int
    best_step: int
    metric: str
    suite: str
    windows: int
    score_before: float
    score_after: float
    recipe: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Origin:
    """The original of a pruned model and the removed components; enough to build the model again.

    name, sha256 : of the original checkpoint (sha256 of its weight files, "" if unknown)
    parameters : of the original
    shapes : of every tensor of the original's module
    components : all removed components, by their addresses in the original
    provenance : how the components were chosen, as the caller states it
    recovery : how the model was trained afterwards (`tsprune.recover`), if it was
    """

    name: str
    sha256: str
    parameters: int
    shapes: Mapping[str, tuple[int, ...]]
    components: tuple[Component, ...]
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    recovery: Recovery | None = None


class Measured(NamedTuple):
    """A measurement before and after a removal, and the change in words."""

    before: float
    after: float
    change: str = ""


# by quantity: {"MASE": (0.81, 0.82), "ms per forecast": Measured(10.3, 7.9, "x 0.77")}
Evidence = Mapping[str, tuple[float, float] | Measured]
