"""From an ablation to a smaller model: what a zero ablation switches off is physically removed."""

from __future__ import annotations

import copy

from tsprune.anatomy import Selection
from tsprune.errors import TspruneError
from tsprune.models.forecaster import Forecaster, Origin
from tsprune.models.removal import remove
from tsprune.pruning.plan import Plan, identity


def prune(model: Forecaster, what: Plan | Selection) -> Forecaster:
    """A smaller copy of `model` that forecasts as `model` does with `what` ablated to zero.

    what : a `Plan`, or addresses, glob patterns or components (as `tsprune.ablate` takes them)

    Heads are cut out of the projections, MLPs and attention sublayers are not computed, whole layers are
    gone. What is left keeps its address, so the copy can be pruned again, by plans made for the original.
    `save` writes it as a checkpoint. `model` is left as it was.

    Raises TspruneError for a plan that is for another model, a component that is not there (any more), a
    plan that removes nothing, or one that leaves nothing of a stack.

    >>> import tsprune
    >>> model = tsprune.load("bundled:timesfm")
    >>> smaller = tsprune.prune(model, ["stack.2.self.head.*", "stack.3.mlp"])
    >>> smaller.parameter_count < model.parameter_count
    True
    """
    if isinstance(what, Plan):
        what.check(model)
    plan = what if isinstance(what, Plan) else Plan.of(model, what)
    components = plan.fit(model.anatomy)
    if not components:
        raise TspruneError("nothing to remove: the plan names no component")
    pruned = copied(model)
    remove(pruned, components)
    pruned.origin = _origin(model, plan)
    pruned.name = f"{pruned.origin.name} (pruned)"
    return pruned


def copied(model: Forecaster) -> Forecaster:
    """A copy of `model` that shares nothing with it."""
    # functions that a module keeps as staticmethod objects (Toto's rotary embedding) cannot be copied
    kept = [x for part in model.module.modules() for x in vars(part).values() if isinstance(x, staticmethod)]
    return copy.deepcopy(model, {id(function): function for function in kept})


def _origin(model: Forecaster, plan: Plan) -> Origin:
    before = model.origin
    if before is not None:
        return Origin(
            before.name,
            before.sha256,
            before.parameters,
            before.shapes,
            (*before.components, *plan.components),
            {**before.provenance, **plan.provenance},
            before.recovery,
        )
    name, sha256 = identity(model)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.module.state_dict().items()}
    return Origin(name, sha256, model.parameter_count, shapes, plan.components, plan.provenance)
