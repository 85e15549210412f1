"""`tsprune evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tsprune.cli.options import (
    BatchOption,
    ConfigsOption,
    DataOption,
    DeviceOption,
    JsonOption,
    SamplesOption,
    open_model,
    open_suite,
)
from tsprune.cli.output import out, print_frame, print_json, print_skipped, progress_bar, records
from tsprune.files import check_files, output_folder


def evaluate_command(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model as for the other commands, or seasonal-naive.")
    ],
    data: DataOption = "pocket",
    configs: ConfigsOption = None,
    output: Annotated[
        Path | None, typer.Option("--out", help="Folder for all_results.csv (GIFT-Eval's columns).")
    ] = None,
    samples: SamplesOption = None,
    batch_size: BatchOption = 64,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score a model as GIFT-Eval does: MASE and CRPS, also relative to Seasonal Naive."""
    from tsprune.evaluation import evaluate, geometric_mean_ratios, write_all_results

    suite = open_suite(data, configs)
    loaded = model if model == "seasonal-naive" else open_model(model, device, samples)
    if output is not None:
        output = output_folder(output)
        check_files(output / "all_results.csv")
    with progress_bar("evaluate") as update:
        frame = evaluate(
            loaded,  # type: ignore[arg-type]
            suite,
            batch_size=batch_size,
            progress=lambda _name, done, total: update(done, total),
        )
    if output is not None:
        write_all_results(frame, output / "all_results.csv", model)
    means = geometric_mean_ratios(frame)
    if as_json:
        skipped = frame.attrs["skipped"]
        print_json({"configurations": records(frame), "geometric_mean": means, "skipped": skipped})
        return
    shown = ["configuration", "windows", "MASE", "CRPS", "MASE_ratio", "CRPS_ratio"]
    print_frame(frame, f"{model} on {suite.name}", shown)
    print_skipped(frame.attrs["skipped"])
    out.print(
        f"Relative to Seasonal Naive (geometric mean): MASE {means['MASE']:.4f}, CRPS {means['CRPS']:.4f}"
    )
