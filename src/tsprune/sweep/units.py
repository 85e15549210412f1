"""`sweep`: every component of one kind ablated alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pandas as pd

from tsprune.ablation import Ablation, Mode
from tsprune.anatomy import KINDS, Component, Selection
from tsprune.capture import Reference
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.evaluation import Prepared
from tsprune.models.forecaster import Forecaster
from tsprune.sweep.engine import BATCH_SIZE, Progress, SweepResult, run


def sweep(
    model: Forecaster,
    suite: Suite,
    units: Literal["head", "mlp", "attention", "layer"] = "head",
    *,
    only: Selection | None = None,
    mode: Mode = "zero",
    reference: Reference | None = None,
    batch_size: int = BATCH_SIZE,
    prepared: Sequence[Prepared] | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Ablates every unit alone and measures the damage, one row a unit in order of execution.

    units : the kind of component to ablate
    only : addresses or patterns; None takes every unit of the model
    mode, reference : see `tsprune.ablate`

    Columns: address, kind, stack, layer, attention, head, mase_change, crps_change (relative
    changes of the geometric mean over configurations: 0.06 is 6 % worse), spearman_distance (mean
    over windows). `frame.attrs["skipped"]` lists what could not be forecast, with the reason.

    Raises TspruneError for an unknown kind, a pattern without match, or a suite without windows.
    """
    if units not in KINDS:
        raise TspruneError(f"unknown unit {units!r}; one of: {', '.join(KINDS)}")
    components = model.anatomy.components(units)
    if only is not None:
        chosen = set(model.anatomy.select(only))
        components = tuple(c for c in components if c in chosen)
        if not components:
            raise TspruneError(f"{only!r} matches components, but none that is a {units}")
    ablations = {component: Ablation((component,), mode) for component in components}
    result = run(
        model,
        suite,
        list(ablations.values()),
        batch_size=batch_size,
        prepared=prepared,
        reference=reference,
        progress=progress,
    )
    frame = effects_frame(result, ablations)
    frame.attrs["skipped"] = list(result.skipped)
    return frame


def effects_frame(result: SweepResult, ablations: dict[Component, Ablation]) -> pd.DataFrame:
    """One row a component with the effect of its ablation (columns as in `sweep`)."""
    rows = []
    for component, ablation in ablations.items():
        change = result.change(ablation)
        rows.append(
            {
                "address": component.address,
                "kind": component.kind,
                "stack": component.stack,
                "layer": component.layer,
                "attention": component.attention,
                "head": component.head,
                "mase_change": change.mase,
                "crps_change": change.crps,
                "spearman_distance": change.spearman,
            }
        )
    return pd.DataFrame(rows)
