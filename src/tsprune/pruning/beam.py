"""Which whole layers and sublayers can go together: a beam search over sets of them.

Removing an encoder's layer saves a hundred times what a head does, and what sublayers cost together is not
the sum of what they cost alone, so a walk that takes the cheapest next one misses sets that save most.

1. Each layer and sublayer is ablated alone.
2. Of every set that is kept, the most promising sets with one component more (by what that costs alone,
   for what it saves) are ablated, as they are, in the original model.
3. Of those within the budget, some that save most and some that cost least are kept; and again from 2,
   until no set with one more is within the budget.

Nothing is random, and every set that was measured is returned: the best of them draw the curve of
accuracy against what is saved.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tsprune.anatomy import Component, Kind
from tsprune.models.forecaster import Forecaster
from tsprune.pruning.losses import Components, Losses, joined, may_go
from tsprune.pruning.savings import Savings, is_inside
from tsprune.pruning.step import Step

COARSE: tuple[Kind, ...] = ("layer", "attention", "mlp")
WIDTH = 4  # sets that are kept, half of them for what they save and half for what they cost
TRIES = 8  # larger sets that are measured of each


def beam(
    model: Forecaster,
    losses: Losses,
    savings: Savings,
    max_loss: float,
    *,
    kinds: Iterable[Kind] = COARSE,
    width: int = WIDTH,
    tries: int = TRIES,
) -> list[Step]:
    """Every set of layers and sublayers that was measured, in order; see the module.

    max_loss : budget; sets beyond it are measured, but nothing is added to them
    kinds : of the components to take (heads are left out: there are too many)
    """
    wanted = [c for c in model.anatomy.components() if c.kind in kinds and c.kind in COARSE]
    wanted = [c for c in wanted if savings.of(c) > 0 and may_go((c,), model.anatomy)]
    if not wanted:
        return []
    search = _Beam(model, losses, savings)
    found = search.measured([(Step(), (c,)) for c in wanted])
    alone = {step.components[0]: max(0.0, step.limit) for step in found}
    kept = _kept([step for step in found if step.fits(max_loss)], width)
    while kept:
        larger = search.measured(_larger(model, kept, alone, savings, tries))
        found += larger
        kept = _kept([step for step in larger if step.fits(max_loss)], width)
    return found


class _Beam:
    """The model that sets are ablated in, and what they save."""

    def __init__(self, model: Forecaster, losses: Losses, savings: Savings) -> None:
        self._model = model
        self._losses = losses
        self._savings = savings

    def measured(self, wanted: Sequence[tuple[Step, Components]]) -> list[Step]:
        """What the steps lead to that go from a measured one to a larger set."""
        if not wanted:
            return []
        clean, scored = self._losses.scored(self._model, [components for _, components in wanted])
        return [
            before.then(components, self._savings.together(components), self._losses.change(clean, after))
            for (before, components), after in zip(wanted, scored, strict=True)
        ]


def _larger(
    model: Forecaster,
    kept: Sequence[Step],
    alone: dict[Component, float],
    savings: Savings,
    tries: int,
) -> list[tuple[Step, Components]]:
    """Sets with one component more, the most promising `tries` of each that is kept, each set once."""
    found: dict[frozenset[Component], tuple[Step, Components]] = {}
    for step in kept:
        ordered = sorted(
            (c for c in alone if _adds(c, step.components)),
            key=lambda c: (alone[c] / _gain(c, step, savings), -_gain(c, step, savings), c.address),
        )
        new = 0
        for component in ordered:
            together = joined(step.components, component)
            known = frozenset(model.anatomy.expand(together))
            if new < tries and known not in found and may_go(together, model.anatomy):
                found[known] = step, model.anatomy.select(together)
                new += 1
    return list(found.values())


def _adds(component: Component, components: Components) -> bool:
    return component not in components and not any(is_inside(component, c) for c in components)


def _gain(component: Component, step: Step, savings: Savings) -> float:
    """What `component` saves beside what is gone; a layer without all its parts may save nothing more."""
    return max(savings.of(component, step.components), 1e-9)


def _kept(steps: Sequence[Step], width: int) -> list[Step]:
    """In turns the one that saves most and the one that costs least, `width` in all.

    What seems to be gained does not count: it is of these series, and would be looked for.
    """
    by_saving = sorted(steps, key=lambda s: (-s.saved, s.limit, _names(s)))
    by_cost = sorted(steps, key=lambda s: (max(0.0, s.limit), -s.saved, _names(s)))
    turns = [step for pair in zip(by_saving, by_cost, strict=True) for step in pair]
    return list({_names(step): step for step in turns}.values())[:width]


def _names(step: Step) -> tuple[str, ...]:
    return tuple(component.address for component in step.components)


def frontier(steps: Iterable[Step]) -> list[Step]:
    """The steps that no other beats in both loss and saving, by saving."""
    best: list[Step] = []
    for step in sorted(steps, key=lambda s: (-s.saved, s.loss, _names(s))):
        if not best or step.loss < best[-1].loss:
            best.append(step)
    return best[::-1]
