"""`sweep`: every component of one kind ablated alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

import pandas as pd

from tsprune.anatomy import KINDS, Component, Kind, Selection, described
from tsprune.arguments import checked, shown
from tsprune.choices import Mode
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.evaluation import METRICS
from tsprune.evaluation.single_series import unmeasured
from tsprune.hooks.ablation import Ablation
from tsprune.hooks.capture import Reference
from tsprune.models.forecaster import Forecaster
from tsprune.run_options import Options, RunOptions
from tsprune.schema import Table
from tsprune.sweeps.engine import Executor, run
from tsprune.sweeps.sweep_result import Masks, SweepResult


@checked
def single_ablations(
    model: Forecaster,
    kind: Kind = "head",
    *,
    components: Selection | None = None,
    mode: Mode = "zero",
    seed: int = 0,
) -> dict[Component, Ablation]:
    """Components of one kind in order of execution, and their ablations; arguments and errors of `sweep`."""
    if kind not in KINDS:
        raise TspruneError(f"unknown kind {shown(kind)}; one of: {', '.join(KINDS)}")
    chosen = model.anatomy.components(kind)
    if components is not None:
        selected = set(model.anatomy.select(components))
        chosen = tuple(c for c in chosen if c in selected)
        if not chosen:
            raise TspruneError(f"{shown(components)} matches components, but no {kind}")
    return {component: Ablation((component,), mode, seed) for component in chosen}


@checked
def sweep(
    model: Forecaster,
    suite: Suite,
    *,
    kind: Kind = "head",
    components: Selection | None = None,
    mode: Mode = "zero",
    reference: Reference | None = None,
    executor: Executor | None = None,
    device: str | None = None,
    **options: Unpack[Options],
) -> Table:
    """Ablates every component of one kind alone and measures the damage, one row each in order of execution.

    kind : of the components to ablate
    components : addresses or patterns; None takes every component of that kind
    mode, reference : see `tsprune.ablate`
    executor, device : see `tsprune.sweeps.run`
    options : keywords of `tsprune.run_options.RunOptions`; `seed` is that of resample ablations. With a
        store, finished cells are not computed again, and a component that raises does not end the sweep

    Columns: address, kind, stack, layer, attention, head, mase_change, crps_change and so on for every
    metric of `METRICS` (relative changes of the geometric mean over configurations: 0.06 is 6 % worse),
    spearman_distance (mean over windows). `Table.notes` names heads that the suite cannot measure: those that
    attend over series, where every window is a single one.

    Raises TspruneError for an unknown kind, a pattern without match, or a suite without windows.
    """
    seed = RunOptions(**options).seed
    ablations = single_ablations(model, kind, components=components, mode=mode, seed=seed)
    cells = list(ablations.values())
    result = run(model, suite, cells, reference=reference, executor=executor, device=device, **options)
    title = f"{model.name} on {suite.name}: {kind}s ablated ({mode})"
    frame, failed = effects_frame(result, ablations), failed_cells(result)
    return Table(frame, title, result.skipped, failed, unmeasured(model, suite))


def failed_cells(result: SweepResult) -> tuple[tuple[str, str], ...]:
    """(addresses and configuration, error) of the cells that raised."""
    return tuple(
        (" ".join(c.address for c in ablation.components) + f" on {name}", error)
        for (ablation, name), error in result.failed.items()
    )


def effects_frame(
    result: SweepResult, ablations: Mapping[Component, Ablation], masks: Masks | None = None
) -> pd.DataFrame:
    """One row per component with the effect of its ablation (columns as in `sweep`).

    masks : the windows that count, as in `SweepResult.change`
    """
    changes = [result.change(ablation, masks) for ablation in ablations.values()]
    frame = pd.DataFrame(described(ablations))
    for name, metric in METRICS.items():
        frame[f"{metric.key}_change"] = [change[name] for change in changes]
    return frame.assign(spearman_distance=[change.spearman for change in changes])
