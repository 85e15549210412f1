"""`tsprune sweep`."""

from __future__ import annotations

from typing import Annotated

import typer

from tsprune.cli.options import (
    BatchOption,
    ConfigsOption,
    DataOption,
    DeviceOption,
    JsonOption,
    ModelArgument,
    open_model,
    open_suite,
)
from tsprune.cli.output import print_frame, print_json, print_skipped, progress_bar, records


def sweep(
    model: ModelArgument,
    units: Annotated[str, typer.Option(help="What to ablate: head, mlp, attention or layer.")] = "head",
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Only these addresses or patterns; repeatable.")
    ] = None,
    mode: Annotated[str, typer.Option(help="Replace outputs by: zero, mean or resample.")] = "zero",
    data: DataOption = "pocket",
    configs: ConfigsOption = None,
    batch_size: BatchOption = 64,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ablate every component of one kind alone and measure the damage."""
    from tsprune.sweep import sweep as run_sweep

    suite = open_suite(data, configs)
    loaded = open_model(model, device)
    with progress_bar("sweep") as update:
        frame = run_sweep(
            loaded,
            suite,
            units,  # type: ignore[arg-type]
            only=only,
            mode=mode,  # type: ignore[arg-type]
            batch_size=batch_size,
            progress=update,
        )
    if as_json:
        print_json(records(frame))
        return
    shown = ["address", "mase_change", "crps_change", "spearman_distance"]
    print_frame(frame, f"{model} on {suite.name}: {units} ablated ({mode})", shown)
    print_skipped(frame.attrs["skipped"])
