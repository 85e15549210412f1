"""`tsprune study`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tsprune.cli.options import (
    COUNT,
    BatchOption,
    ConfigsOption,
    DataOption,
    DeviceOption,
    JsonOption,
    PercentOption,
    SeedOption,
    StoreOption,
    open_suite,
)
from tsprune.cli.output import out, print_json, records, stage_bars
from tsprune.errors import printable
from tsprune.files import check_files, output_folder


def study_command(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL]...", help="Models to study; by default the bundled ones."),
    ] = None,
    data: DataOption = "pocket",
    configs: ConfigsOption = None,
    output: Annotated[Path, typer.Option("--out", help="Folder for the report and results.")] = Path("study"),
    percent: PercentOption = 1.0,
    seed: SeedOption = 0,
    samples: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=COUNT,
            help="Paths drawn per window by models that sample; by default 8, and 3 by Chronos-T5, which "
            "decodes them value by value.",
            show_default=False,
        ),
    ] = None,
    batch_size: BatchOption = 64,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain/--no-explain", help="Also look at why: attention, copying, the residual stream."
        ),
    ] = True,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1024,
            help="Models studied at once, each in a process of its own; by default as many as there are "
            "threads for, and 1 on a GPU.",
            show_default=False,
        ),
    ] = None,
    device: DeviceOption = None,
    store: StoreOption = None,
    picture: Annotated[
        Path | None, typer.Option(help="Also draw the results as one static picture (.svg).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run the whole study: what each layer and head is worth, and whether the paper's claims hold.

    Writes report.html (open it in a browser), results.parquet and manifest.json.
    """
    from tsprune.models.checkpoints import find
    from tsprune.models.placement import device_of
    from tsprune.report import print_summary, write_picture, write_report
    from tsprune.studies import DEFAULT_MODELS, study
    from tsprune.studies.study_files import write_results

    suite = open_suite(data, configs)
    device_of(device)  # refused before the work, not in its processes
    names = models or list(DEFAULT_MODELS)
    for name in names:  # before a folder is made
        find(name)
    check_files(picture, store)
    output = output_folder(output)
    check_files(*(output / name for name in ("report.html", "results.parquet", "manifest.json")))
    with stage_bars() as update:
        result = study(
            names,
            suite,
            percent=percent,
            seed=seed,
            samples=samples,
            batch_size=batch_size,
            explain=explain,
            jobs=jobs,
            device=device,
            progress=update,
            store=store,
        )
    write_results(result, output)
    write_report(result, output / "report.html")
    if picture is not None:
        write_picture(result, picture)
    if as_json:
        from tsprune.studies.study_files import results_table

        print_json({"manifest": result.manifest, "results": records(results_table(result))})
        return
    print_summary(result, out)
    out.print(printable(f"Report: {output / 'report.html'}"), markup=False, highlight=False, soft_wrap=True)
