"""What removing a component saves: parameters, floating-point operations, or time.

Components of one class (say, the heads of the decoder's cross-attention) are the same size in every
layer, so each class is measured once, on a model it is physically removed from. Time is estimated from
what is counted (`tsprune.cost.flops`), not measured: a plan can be found again, elsewhere as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from tsprune.anatomy import Component
from tsprune.cost.flops import work
from tsprune.cost.latency import flops
from tsprune.errors import TspruneError
from tsprune.models.forecaster import Forecaster
from tsprune.pruning.surgery import prune

Objective = Literal["latency", "flops", "parameters"]
OBJECTIVES: tuple[Objective, ...] = ("latency", "flops", "parameters")
BATCH, CONTEXT, HORIZON = 64, 512, 24  # of the forecasts that are counted


class Class(NamedTuple):
    """Components that are alike: of one kind, in sublayers of one kind of one stack."""

    stack: str
    attention: str | None
    kind: str


def class_of(component: Component) -> Class:
    """The class that `component` saves as much as."""
    return Class(component.stack, component.attention, component.kind)


@dataclasses.dataclass(frozen=True)
class Savings:
    """Shares of the whole model's cost, by class of component.

    objective : what the cost is
    share : 0.02 is 2 % of the model's parameters, operations or estimated time
    """

    objective: Objective
    share: Mapping[Class, float]

    def of(self, component: Component, gone: Iterable[Component] = ()) -> float:
        """What removing `component` saves when `gone` are removed already: parts are saved once."""
        already = [c for c in gone if is_inside(c, component)]
        outermost = (c for c in already if not any(is_inside(c, other) for other in already))
        return max(0.0, self.share[class_of(component)] - sum(self.share[class_of(c)] for c in outermost))

    def together(self, components: Sequence[Component]) -> float:
        """What removing `components`, none inside another, saves."""
        return sum(self.share[class_of(c)] for c in components)


def is_inside(inner: Component, outer: Component) -> bool:
    """Whether `inner` is a part of `outer`: of a layer, or a head of an attention sublayer."""
    if (inner.stack, inner.layer) != (outer.stack, outer.layer) or inner == outer:
        return False
    if outer.kind == "layer":
        return True
    return outer.kind == "attention" and inner.kind == "head" and inner.attention == outer.attention


def measure(model: Forecaster, objective: Objective) -> Savings:
    """What each class of component of `model` saves.

    Raises TspruneError for an unknown objective.
    """
    if objective not in OBJECTIVES:
        raise TspruneError(f"unknown objective {objective!r}; one of: {', '.join(OBJECTIVES)}")
    classes: dict[Class, list[Component]] = {}
    for component in model.anatomy.components():
        classes.setdefault(class_of(component), []).append(component)
    cost = _COSTS[objective]
    whole = cost(model)

    def share(members: list[Component]) -> float:
        sample = _sample(members)
        if sample == members and members[0].kind == "layer":
            return 0.0  # a stack of a single layer
        return max(0.0, (1 - cost(prune(model, sample)) / whole) / len(sample))

    return Savings(objective, {kind: share(members) for kind, members in classes.items()})


def _sample(members: list[Component]) -> list[Component]:
    """About half of a class, so that what is left is a model.

    Every other head of a sublayer, in the next layer the others, so that no sublayer goes whole and
    every head of what layers share (T5's bias) is still used; of other classes the later half, so that
    every stack keeps its first layer, which owns what is shared.
    """
    heads = [c for c in members if c.head is not None and (c.head + c.layer) % 2]
    if heads:
        return heads
    return members[-max(1, len(members) // 2) :]


def _forecast(model: Forecaster) -> Callable[[], object]:
    length = min(CONTEXT, model.context_length)
    series = np.random.default_rng(0).standard_normal((BATCH, length)).cumsum(1).astype(np.float32)
    return lambda: model.forecast(list(series.copy()), HORIZON)


_COSTS: dict[Objective, Callable[[Forecaster], float]] = {
    "parameters": lambda model: model.parameter_count,
    "flops": lambda model: flops(_forecast(model)),
    "latency": lambda model: work(_forecast(model)).seconds,
}
