"""`sweep`: every component of one kind ablated alone."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pandas as pd

from tsprune.anatomy import KINDS, Component, Selection
from tsprune.arguments import checked
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.evaluation import METRICS
from tsprune.hooks.ablation import Ablation, Mode
from tsprune.hooks.capture import Reference
from tsprune.models.forecaster import Forecaster
from tsprune.replay import MEMORY
from tsprune.sweeps.engine import BATCH_SIZE, Executor, Progress, run
from tsprune.sweeps.store import Store
from tsprune.sweeps.sweep_result import SweepResult

Units = Literal["head", "mlp", "attention", "layer"]


@checked
def unit_ablations(
    model: Forecaster,
    units: Units = "head",
    *,
    only: Selection | None = None,
    mode: Mode = "zero",
    seed: int = 0,
) -> dict[Component, Ablation]:
    """Every unit of one kind, in order of execution, and its ablation; arguments and errors of `sweep`."""
    if units not in KINDS:
        raise TspruneError(f"unknown unit {units!r}; one of: {', '.join(KINDS)}")
    components = model.anatomy.components(units)
    if only is not None:
        chosen = set(model.anatomy.select(only))
        components = tuple(c for c in components if c in chosen)
        if not components:
            raise TspruneError(f"{only!r} matches components, but none that is a {units}")
    return {component: Ablation((component,), mode, seed) for component in components}


@checked
def sweep(
    model: Forecaster,
    suite: Suite,
    units: Units = "head",
    *,
    only: Selection | None = None,
    mode: Mode = "zero",
    seed: int = 0,
    reference: Reference | None = None,
    batch_size: int = BATCH_SIZE,
    progress: Progress | None = None,
    store: Store | str | Path | None = None,
    executor: Executor | None = None,
    device: str | None = None,
    memory: int = MEMORY,
) -> pd.DataFrame:
    """Ablates every unit alone and measures the damage, one row a unit in order of execution.

    units : the kind of component to ablate
    only : addresses or patterns; None takes every unit of the model
    mode, reference, seed : see `tsprune.ablate`
    store : a results store, or the path of one: what it holds is not computed again, and what is
        computed is kept there batch by batch; units that raise are listed, and do not end the sweep
    executor, device, memory : see `tsprune.sweep.run`

    Columns: address, kind, stack, layer, attention, head, mase_change, crps_change and so on for every
    metric of `METRICS` (relative changes of the geometric mean over configurations: 0.06 is 6 % worse),
    spearman_distance (mean over windows). `frame.attrs["skipped"]` lists windows without a forecast, with the
    reason; `frame.attrs["failed"]` lists (address and configuration, error) of what raised, with a store.

    Raises TspruneError for an unknown kind, a pattern without match, or a suite without windows.
    """
    ablations = unit_ablations(model, units, only=only, mode=mode, seed=seed)
    result = run(
        model,
        suite,
        list(ablations.values()),
        batch_size=batch_size,
        reference=reference,
        progress=progress,
        store=store,
        executor=executor,
        device=device,
        memory=memory,
    )
    frame = effects_frame(result, ablations)
    frame.attrs["skipped"] = list(result.skipped)
    frame.attrs["failed"] = failed_cells(result)
    return frame


def failed_cells(result: SweepResult) -> list[tuple[str, str]]:
    """(addresses and configuration, error) of what raised."""
    return [
        (" ".join(c.address for c in ablation.components) + f" on {name}", error)
        for (ablation, name), error in result.failed.items()
    ]


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
                **{f"{metric.key}_change": change[name] for name, metric in METRICS.items()},
                "spearman_distance": change.spearman,
            }
        )
    return pd.DataFrame(rows)
