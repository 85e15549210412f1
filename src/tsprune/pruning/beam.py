"""Beam search over sets of whole layers and sublayers.

Removing a layer saves far more than removing a head, and losses of sublayers do not add up, so a greedy
search misses the sets that save most.

1. Each layer and sublayer is ablated alone.
2. Each set in the beam is extended by one component; the most promising extensions (lowest loss of the
   component alone per unit saved) are ablated in the original model.
3. Of those within the budget, the beam keeps some that save most and some that cost least, and goes back to
   2 until no extension is within the budget.

The search is deterministic. Every measured set is returned; the best form the curve of loss against saving.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tsprune.anatomy import Component, Kind
from tsprune.models.forecaster import Forecaster
from tsprune.pruning.losses import CalibrationLosses, RemovalStep
from tsprune.pruning.savings import Components, Savings, is_inside, joined, leaves_every_stack

_COARSE: tuple[Kind, ...] = ("layer", "attention", "mlp")
_WIDTH = 4  # sets in the beam, half by saving and half by loss
_TRIES = 8  # extensions measured of each


def beam(
    model: Forecaster,
    losses: CalibrationLosses,
    savings: Savings,
    max_loss: float,
    *,
    kinds: Iterable[Kind] = _COARSE,
    width: int = _WIDTH,
    tries: int = _TRIES,
) -> list[RemovalStep]:
    """Every measured set of layers and sublayers, in order.

    max_loss : budget; sets beyond it are measured but not extended
    kinds : kinds of component; heads are ignored, there are too many
    width, tries : sets in the beam, and extensions measured of each
    """
    wanted = [c for c in model.anatomy.components() if c.kind in kinds and c.kind in _COARSE]
    wanted = [c for c in wanted if savings.of(c) > 0 and leaves_every_stack((c,), model.anatomy)]
    if not wanted:
        return []
    found = _measured(model, losses, savings, [(RemovalStep(), (c,)) for c in wanted])
    alone = {step.components[0]: max(0.0, step.limit) for step in found}
    kept = _kept([step for step in found if step.fits(max_loss)], width)
    while kept:
        larger = _measured(model, losses, savings, _larger(model, kept, alone, savings, tries))
        found += larger
        kept = _kept([step for step in larger if step.fits(max_loss)], width)
    return found


def _measured(
    model: Forecaster,
    losses: CalibrationLosses,
    savings: Savings,
    wanted: Sequence[tuple[RemovalStep, Components]],
) -> list[RemovalStep]:
    """The measured steps from each set to its extension."""
    if not wanted:
        return []
    clean, scored = losses.scored(model, [components for _, components in wanted])
    return [
        before.then(components, savings.together(components), losses.change(clean, after))
        for (before, components), after in zip(wanted, scored, strict=True)
    ]


def _larger(
    model: Forecaster,
    kept: Sequence[RemovalStep],
    alone: dict[Component, float],
    savings: Savings,
    tries: int,
) -> list[tuple[RemovalStep, Components]]:
    """The most promising `tries` extensions of each set in the beam, each set once."""
    found: dict[frozenset[Component], tuple[RemovalStep, Components]] = {}
    for step in kept:
        there = step.components
        ordered = sorted(
            (c for c in alone if c not in there and not any(is_inside(c, one) for one in there)),
            key=lambda c: (alone[c] / _gain(c, step, savings), -_gain(c, step, savings), c.address),
        )
        new = 0
        for component in ordered:
            together = joined(there, component)
            known = frozenset(model.anatomy.expand(together))
            if new < tries and known not in found and leaves_every_stack(together, model.anatomy):
                found[known] = step, model.anatomy.select(together)
                new += 1
    return list(found.values())


def _gain(component: Component, step: RemovalStep, savings: Savings) -> float:
    """The additional saving of `component`, at least 1e-9: a layer whose parts are removed saves 0."""
    return max(savings.of(component, step.components), 1e-9)


def _kept(steps: Sequence[RemovalStep], width: int) -> list[RemovalStep]:
    """Alternately the set that saves most and the set that costs least, `width` in all.

    Apparent gains count as a loss of 0: the search would otherwise select for noise.
    """
    by_saving = sorted(steps, key=lambda s: (-s.saved, s.limit, _names(s)))
    by_cost = sorted(steps, key=lambda s: (max(0.0, s.limit), -s.saved, _names(s)))
    turns = [step for pair in zip(by_saving, by_cost, strict=True) for step in pair]
    return list({_names(step): step for step in turns}.values())[:width]


def _names(step: RemovalStep) -> tuple[str, ...]:
    return tuple(component.address for component in step.components)


def undominated(steps: Iterable[RemovalStep]) -> list[RemovalStep]:
    """The Pareto-optimal steps in loss and saving, by saving."""
    best: list[RemovalStep] = []
    for step in sorted(steps, key=lambda s: (-s.saved, s.loss, _names(s))):
        if not best or step.loss < best[-1].loss:
            best.append(step)
    return best[::-1]
