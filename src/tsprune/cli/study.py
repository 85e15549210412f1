"""`tsprune study`."""

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
    SeedOption,
    StoreOption,
    open_model,
    open_suite,
    output_folder,
)
from tsprune.cli.output import out, print_json, progress_bar, records


def study(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL]...", help="Models to study; by default the bundled ones."),
    ] = None,
    data: DataOption = "pocket",
    configs: ConfigsOption = None,
    output: Annotated[Path, typer.Option("--out", help="Folder for the report and results.")] = Path("study"),
    percent: Annotated[float, typer.Option(min=0, help="X of heads@Xpp.")] = 1.0,
    seed: SeedOption = 0,
    samples: Annotated[
        int | None,
        typer.Option(
            min=1, help="Paths drawn per window by models that sample; by default 8.", show_default=False
        ),
    ] = None,
    batch_size: BatchOption = 64,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain/--no-explain", help="Also look at why: attention, copying, the residual stream."
        ),
    ] = True,
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
    from tsprune.report import print_summary, write_picture, write_report
    from tsprune.study import DEFAULT_MODELS, STUDY_SAMPLES
    from tsprune.study import study as run_study
    from tsprune.study.output import write_results

    suite = open_suite(data, configs)
    loaded = [open_model(name, device, samples or STUDY_SAMPLES) for name in models or DEFAULT_MODELS]
    output = output_folder(output)
    with progress_bar("study") as update:
        order = [model.name for model in loaded]

        def report(name: str, done: int, total: int) -> None:
            # the models' sweeps differ in length; the bar treats them as equal shares
            update(order.index(name) * 1000 + round(1000 * done / total), 1000 * len(order))

        result = run_study(
            loaded,
            suite,
            percent=percent,
            seed=seed,
            batch_size=batch_size,
            explain=explain,
            progress=report,
            store=store,
        )
    write_results(result, output)
    write_report(result, output / "report.html")
    if picture is not None:
        write_picture(result, picture)
    if as_json:
        from tsprune.study.output import results_table

        print_json({"manifest": result.manifest, "results": records(results_table(result))})
        return
    print_summary(result, out)
    out.print(f"Report: {output / 'report.html'}", highlight=False)
