"""`tsprune heads-at`."""

from __future__ import annotations

from typing import Annotated

import typer

from tsprune.cli.options import (
    BatchOption,
    ByOption,
    ConfigsOption,
    DataOption,
    DeviceOption,
    JsonOption,
    ModelArgument,
    PercentOption,
    SamplesOption,
    SeedOption,
    StoreOption,
    open_model,
    open_suite,
)
from tsprune.cli.output import (
    print_failed,
    print_frame,
    print_json,
    print_skipped,
    progress_bar,
    records,
)


def heads_at_command(
    model: ModelArgument,
    percent: PercentOption = 1.0,
    by: ByOption = "stable_rank",
    metric: Annotated[str, typer.Option(help="MASE or CRPS.")] = "MASE",
    data: DataOption = "pocket",
    configs: ConfigsOption = None,
    seed: SeedOption = 0,
    samples: SamplesOption = None,
    batch_size: BatchOption = 64,
    device: DeviceOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """How many heads of each layer must stay for a loss of at most X percent (heads@Xpp).

    With --store, finished work is kept as it is done, and a run that was stopped goes on where it was.
    """
    from tsprune.pruning import heads_at

    suite = open_suite(data, configs)
    loaded = open_model(model, device, samples)
    with progress_bar("heads-at") as update:
        frame = heads_at(
            loaded,
            suite,
            max_loss=percent / 100,
            by=by,
            metric=metric,  # type: ignore[arg-type]
            seed=seed,
            batch_size=batch_size,
            progress=lambda stage, done, total: update(done, total),
            store=store,
        )
    if as_json:
        print_json(records(frame))
    else:
        print_frame(frame, f"{model} on {suite.name}: heads@{percent:g}pp by {by}")
        print_skipped(frame.attrs["skipped"])
    if frame.attrs["failed"]:
        print_failed(frame.attrs["failed"])
        raise typer.Exit(1)
