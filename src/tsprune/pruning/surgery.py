"""Physical removal: a smaller model in place of a zero ablation."""

from __future__ import annotations

import dataclasses
from typing import Unpack

import torch

from tsprune.anatomy import Selection
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.models.copies import model_copy
from tsprune.models.forecaster import Forecaster, Origin
from tsprune.models.placement import dtype_of
from tsprune.models.removal import remove
from tsprune.models.saving import round_weights
from tsprune.pruning.evidence import measured
from tsprune.pruning.plan import Plan, identity
from tsprune.run_options import Options


def prune(
    model: Forecaster,
    plan: Plan | Selection,
    *,
    measure: Suite | None = None,
    dtype: str | torch.dtype | None = None,
    **options: Unpack[Options],
) -> Forecaster:
    """A smaller copy of `model` that forecasts as `model` does with the plan's components ablated to zero.

    plan : a `Plan`, or addresses, glob patterns or components (as `tsprune.ablate` takes them)
    measure : windows that scores of both models are measured on, with milliseconds, for the model card; after
        a search on a part of them, the other part (`tsprune.data.split`)
    dtype : type that the weights are rounded to, which `save` writes; None: that of the original, if measured
    options : keywords of `tsprune.run_options.RunOptions`, for `measure`

    Heads are cut out of the projections; MLPs, attention sublayers and layers are dropped. The remaining
    components keep their addresses, so the copy can be pruned again, by plans made for the original.
    `save` writes it as a checkpoint, with the measurements in `evidence`. `model` is not changed.

    Raises TspruneError for a plan for another model, a missing component, an empty plan, a plan that
    removes a whole stack, and windows of which none can be forecast.

    >>> import tsprune
    >>> model = tsprune.load("bundled:timesfm")
    >>> smaller = tsprune.prune(model, ["stack.2.self.head.*", "stack.3.mlp"])
    >>> smaller.parameter_count < model.parameter_count
    True
    """
    if isinstance(plan, Plan):
        plan.check(model)
    else:
        plan = Plan.of(model, plan)
    components = plan.fit(model.anatomy)
    if not components:
        raise TspruneError("the plan is empty: name at least one component to remove")
    pruned = model_copy(model)
    remove(pruned, components)
    before = model.origin or _original(model)
    pruned.origin = dataclasses.replace(
        before,
        components=(*before.components, *plan.components),
        provenance={**before.provenance, **plan.provenance},
    )
    pruned.name = f"{pruned.origin.name} (pruned)"
    pruned.evidence = {}
    if measure is not None or dtype is not None:
        round_weights(pruned, None if dtype is None else dtype_of(dtype))  # measured as they are saved
    if measure is not None:
        pruned.evidence = measured(model, pruned, measure, options=options)
    return pruned


def _original(model: Forecaster) -> Origin:
    """The origin of a whole model, from which nothing is removed yet."""
    shapes = {name: tuple(tensor.shape) for name, tensor in model.module.state_dict().items()}
    return Origin(*identity(model), model.parameter_count, shapes, ())
