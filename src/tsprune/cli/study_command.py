"""`tsprune study`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tsprune.cli.options import MaxLossOption, Shared, integer, option, with_shared
from tsprune.cli.output import err, out, say
from tsprune.files import check_files, output_folder
from tsprune.progress import display


@with_shared(
    "suite",
    "run",
    "dtype",
    "store",
    "output",
    samples="8, and 3 by Chronos-T5, which decodes them value by value",
)
def study_command(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL]...", help="Models to study; by default the bundled ones."),
    ] = None,
    output: Annotated[Path, option("Folder for the report and results.", "--out")] = Path("study"),
    max_loss: MaxLossOption = 0.01,
    explain: Annotated[
        bool, option("Also explain: attention, copying, the residual stream.", "--explain/--no-explain")
    ] = True,
    jobs: Annotated[
        int | None,
        integer(
            "Models studied at once, each in a process of its own; by default as many as there are "
            "threads for, and 1 on a GPU.",
            most=1024,
            show_default=False,
        ),
    ] = None,
    picture: Annotated[Path | None, option("Also draw the results as one static picture (.svg).")] = None,
    *,
    shared: Shared,
) -> None:
    """Run the whole study: the worth of each layer and head, and a verdict on each claim of the paper.

    Writes report.html (open it in a browser), results.parquet and manifest.json.
    """
    shared.check(*(models or []))
    check_files(picture, shared.store)
    output = output_folder(output)
    check_files(*(output / name for name in ("report.html", "results.parquet", "manifest.json")))
    suite = shared.suite
    from tsprune.models.placement import device_of
    from tsprune.report import print_summary, write_picture, write_report
    from tsprune.studies import DEFAULT_MODELS, study
    from tsprune.studies.study_result import results_table, write_results

    device_of(shared.device)  # refused before the work, not in its processes
    with display(err, quiet=shared.quiet) as update:
        result = study(
            models or list(DEFAULT_MODELS),
            suite,
            max_loss=max_loss,
            seed=shared.seed,
            samples=shared.samples,
            batch_size=shared.batch_size,
            memory=shared.memory_bytes,
            explain=explain,
            jobs=jobs,
            device=shared.device,
            dtype=shared.dtype,
            progress=lambda stage, done, total: update(*_model_and_stage(stage), done, total),
            store=shared.store,
        )
    write_results(result, output)
    write_report(result, output / "report.html")
    if picture is not None:
        write_picture(result, picture)

    def tables() -> None:
        print_summary(result, out)
        say(f"Report: {output / 'report.html'}")

    shared.report(
        "study",
        {"manifest": result.manifest, "results": results_table(result)},
        tables,
        skipped=result.skipped if shared.as_json else (),  # the summary lists them
    )


def _model_and_stage(stage: str) -> tuple[str, str]:
    model, _, work = stage.rpartition(": ")
    return model, work
