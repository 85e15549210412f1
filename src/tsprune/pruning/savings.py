"""Expected savings of removing components: parameters, floating-point operations, or time.

Components of one class (such as the heads of the decoder's cross-attention) have the same size in every
layer, so each class is measured once, on a model that a part of it is physically removed from. Time is
estimated from counted operations (`tsprune.cost.flops`), not measured, so plans are reproducible. They are
counted for two and four windows, which gives those of any number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from tsprune.anatomy import Anatomy, Component
from tsprune.choices import OBJECTIVES, Objective
from tsprune.cost.flops import Work, work_of_batch
from tsprune.errors import TspruneError
from tsprune.models.copies import model_copy
from tsprune.models.forecaster import Forecaster
from tsprune.models.removal import remove
from tsprune.progress import Progress, silent

BATCH, CONTEXT, HORIZON = 64, 512, 24  # of the forecasts that are counted

Components = tuple[Component, ...]


class ComponentClass(NamedTuple):
    """Components of one size: of one kind, in sublayers of one role of one stack."""

    stack: str
    attention: str | None
    kind: str

    @classmethod
    def of(cls, component: Component) -> ComponentClass:
        """The class of a component."""
        return cls(component.stack, component.attention, component.kind)


@dataclasses.dataclass(frozen=True)
class Savings:
    """Shares of the whole model's cost by class of component.

    objective : the cost
    share : 0.02 is 2 % of the model's parameters, operations or estimated time
    """

    objective: Objective
    share: Mapping[ComponentClass, float]

    def of(self, component: Component, removed: Iterable[Component] = ()) -> float:
        """The additional saving of `component` after `removed`: parts are saved once."""
        parts = [c for c in removed if is_inside(c, component)]
        outermost = (c for c in parts if not any(is_inside(c, other) for other in parts))
        return max(0.0, self._share(component) - sum(self._share(c) for c in outermost))

    def together(self, components: Sequence[Component]) -> float:
        """The saving of `components`, none of which may be inside another."""
        return sum(self._share(c) for c in components)

    def _share(self, component: Component) -> float:
        return self.share[ComponentClass.of(component)]


_known: WeakKeyDictionary[Forecaster, dict[Objective, Savings]] = WeakKeyDictionary()


def measure_savings(model: Forecaster, objective: Objective, progress: Progress = silent) -> Savings:
    """The saving of each class of component of `model`; measured once a model, as it follows from its shapes.

    progress : its stage is "counting", classes done and all of them

    Raises TspruneError for an unknown objective.
    """
    if objective not in OBJECTIVES:
        raise TspruneError(f"unknown objective {objective!r}; one of: {', '.join(OBJECTIVES)}")
    known = _known.setdefault(model, {})
    if objective not in known:
        known[objective] = _measured(model, objective, progress)
    return known[objective]


def _measured(model: Forecaster, objective: Objective, progress: Progress) -> Savings:
    classes = component_classes(model)
    whole = cost_of(model, objective)

    def share(members: list[Component]) -> float:
        sample = _sample(members)
        if sample == members and members[0].kind == "layer":
            return 0.0  # a stack of a single layer
        smaller = model_copy(model)
        remove(smaller, sample)
        return max(0.0, (1 - cost_of(smaller, objective) / whole) / len(sample))

    shares: dict[ComponentClass, float] = {}
    for kind, members in classes.items():
        shares[kind] = share(members)
        progress("counting", len(shares), len(classes))
    return Savings(objective, shares)


def component_classes(model: Forecaster) -> dict[ComponentClass, list[Component]]:
    """The components of a model by class."""
    classes: dict[ComponentClass, list[Component]] = {}
    for component in model.anatomy.components():
        classes.setdefault(ComponentClass.of(component), []).append(component)
    return classes


def cost_of(model: Forecaster, objective: Objective) -> float:
    """The objective's value of a model: parameters, operations, or estimated seconds."""
    return _COSTS[objective](model)


def _sample(members: list[Component]) -> list[Component]:
    """About half of a class, so that a model remains without it.

    Heads: every other one of a sublayer, alternating between layers, so no sublayer is empty and every head
    of T5's shared bias stays in use. Other classes: the later half, so every stack keeps its first layer,
    which owns the shared modules.
    """
    heads = [c for c in members if c.head is not None and (c.head + c.layer) % 2]
    return heads or members[-max(1, len(members) // 2) :]


def _work(model: Forecaster) -> Work:
    length = min(CONTEXT, model.context_length)
    series = np.random.default_rng(0).standard_normal((BATCH, length)).cumsum(1).astype(np.float32)
    return work_of_batch(lambda count: model.forecast(list(series[:count].copy()), HORIZON), BATCH)


_COSTS: dict[Objective, Callable[[Forecaster], float]] = {
    "parameters": lambda model: model.parameter_count,
    "flops": lambda model: _work(model).flops,
    "latency": lambda model: _work(model).seconds,
}


def is_inside(inner: Component, outer: Component) -> bool:
    """Whether `inner` is a part of `outer`: of a layer, or a head of an attention sublayer."""
    if (inner.stack, inner.layer) != (outer.stack, outer.layer) or inner == outer:
        return False
    if outer.kind == "layer":
        return True
    return outer.kind == "attention" and inner.kind == "head" and inner.attention == outer.attention


def joined(components: Sequence[Component], more: Component) -> Components:
    """`components` and `more`, which replaces its parts."""
    return (*(c for c in components if not is_inside(c, more)), more)


def leaves_every_stack(components: Sequence[Component], anatomy: Anatomy) -> bool:
    """Whether every stack keeps a head or an MLP without `components`."""
    removed = frozenset(anatomy.expand(components))
    kept = {stack.name: False for stack in anatomy.stacks}
    for component in anatomy.components():
        part = component.kind in ("head", "mlp")
        whole = component if component.mlp else dataclasses.replace(component, head=None)
        kept[component.stack] |= part and component not in removed and whole not in removed
    return all(kept.values())
