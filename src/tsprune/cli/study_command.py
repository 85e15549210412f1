"""`tsprune study`."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tsprune.cli.options import MaxLossOption, Shared, duration, integer, option, with_shared
from tsprune.cli.output import as_duration, check_pictures, err, note, out, print_costs, say
from tsprune.errors import TspruneError
from tsprune.files import check_files, output_folder
from tsprune.progress import display

if TYPE_CHECKING:
    from tsprune.frontiers import Frontier
    from tsprune.studies import Study
    from tsprune.studies.study_settings import StudySettings

_WRITING = 2.0  # seconds for the files
_BATCHES = (1, 64)  # of the frontier


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
    budget: Annotated[
        float | None,
        option(
            "Time that the study may take, such as 30m: it measures what fits, and lists what does not. "
            "With --store, a larger budget goes on from there.",
            parser=duration,
            metavar="TIME",
        ),
    ] = None,
    frontier: Annotated[
        bool,
        option(
            "Also time and score each model, whole and without what the study would remove, or else its "
            "smallest set, by torch and exported: a minute or two a model. Not with --budget.",
            "--frontier/--no-frontier",
        ),
    ] = False,
    dry_run: Annotated[
        bool, option("Only estimate the time and memory of each stage, without a budget.", "--dry-run")
    ] = False,
    picture: Annotated[
        Path | None,
        option("Also draw the results as one picture (.svg or .png), or every figure into a folder."),
    ] = None,
    *,
    shared: Shared,
) -> None:
    """Run the whole study: the worth of each layer and head, and a verdict on each claim of the paper.

    Writes report.html (open it in a browser), results.parquet and manifest.json.
    """
    started = time.monotonic()
    shared.check(*(models or []))
    check_files(shared.store)
    check_pictures(picture)
    if frontier and budget is not None:
        raise TspruneError(
            "--frontier is not part of --budget; run tsprune frontier MODEL --plan FILE afterwards"
        )
    if dry_run:
        _estimate(models, max_loss, explain, shared)
        return
    output = output_folder(output)
    check_files(*(output / name for name in ("report.html", "results.parquet", "manifest.json")))
    suite = shared.suite
    from tsprune.models.placement import device_of
    from tsprune.report import print_summary, write_picture, write_report
    from tsprune.report.stills import write_stills
    from tsprune.report.study_page import study_pictures
    from tsprune.report.tables import of_models
    from tsprune.studies import DEFAULT_MODELS, study
    from tsprune.studies.study_result import results_table, write_results

    device_of(shared.device)  # refused before the work, not in its processes
    if budget is None and not shared.quiet:
        _warn_of_cost(models, max_loss, explain, shared)
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
            budget=None if budget is None else max(1.0, budget - (time.monotonic() - started) - _WRITING),
            progress=lambda stage, done, total: update(*_model_and_stage(stage), done, total),
            store=shared.store,
        )
    write_results(result, output)
    frontiers, missing = _frontiers(result, output, shared) if frontier else ({}, [])
    result = dataclasses.replace(result, skipped=tuple(dict.fromkeys((*result.skipped, *missing))))
    write_report(result, output / "report.html", frontiers)
    if picture is not None and picture.suffix:
        write_picture(result, picture)
    elif picture is not None:
        write_stills(study_pictures(result, frontiers), picture)

    every = of_models((name, one.frame) for name, one in frontiers.items())
    points = {"frontier": every} if frontiers else {}

    def tables() -> None:
        print_summary(result, out)
        say(f"Report: {output / 'report.html'}")

    shared.report(
        "study",
        {"manifest": result.manifest, "results": results_table(result), **points},
        tables,
        skipped=result.skipped if shared.as_json else (),  # the summary lists them
    )


def _frontiers(
    result: Study, output: Path, shared: Shared
) -> tuple[dict[str, Frontier], list[tuple[str, str]]]:
    """A small frontier of each model, and (item, reason) of what could not be measured."""
    from tsprune.choices import EXPORTED, TORCH
    from tsprune.frontiers import frontier
    from tsprune.studies.removals import smallest_plan

    found: dict[str, Frontier] = {}
    missing: list[tuple[str, str]] = []
    for place, model in enumerate(result.models):
        loaded = shared.load(model.name, device="cpu")
        plan = model.plan or smallest_plan(loaded, model.removals)
        try:
            with shared.running(f"frontier of {model.name}") as options:
                one = frontier(
                    loaded,
                    output / f"frontier-{place + 1}",
                    suite=shared.suite,
                    savings=(),
                    plans=[] if plan is None else [plan],
                    runtimes=(TORCH, EXPORTED),
                    batches=_BATCHES,
                    **options,
                )
        except TspruneError as error:  # the study itself is complete
            missing.append((f"{model.name}: frontier", str(error)))
            continue
        found[model.name] = one
        missing += [(f"{model.name}: {item}", why) for item, why in one.skipped]
    return found, missing


def _settings(max_loss: float, explain: bool, shared: Shared) -> StudySettings:
    from tsprune.run_options import RunOptions
    from tsprune.studies.study_settings import StudySettings

    there = shared.store if shared.store is not None and shared.store.exists() else None
    options = RunOptions(shared.batch_size, shared.memory_bytes, shared.seed, there)
    return StudySettings(
        shared.suite, max_loss, shared.samples, explain, shared.device, shared.dtype, options
    )


def _estimate(models: list[str] | None, max_loss: float, explain: bool, shared: Shared) -> None:
    from tsprune.studies import DEFAULT_MODELS
    from tsprune.studies.study_cost import study_cost

    settings = _settings(max_loss, explain, shared)
    names = models or list(DEFAULT_MODELS)
    found = {name: study_cost(settings.loaded(name), settings) for name in names}
    rows = [{"model": name, **dataclasses.asdict(one)} for name, stages in found.items() for one in stages]

    def tables() -> None:
        for name, stages in found.items():
            print_costs(name, stages)

    shared.report("study", {"estimate": rows}, tables)


def _warn_of_cost(models: list[str] | None, max_loss: float, explain: bool, shared: Shared) -> None:
    """A line about each large model that is studied on a CPU without a budget."""
    from tsprune.studies.study_cost import large_study_seconds

    settings = _settings(max_loss, explain, shared)
    for name in models or ():
        if (seconds := large_study_seconds(settings.loaded(name), settings)) is not None:
            time = as_duration(seconds)
            note(f"{name}: the study takes about {time} on this machine; --budget 30m limits it")


def _model_and_stage(stage: str) -> tuple[str, str]:
    model, _, work = stage.rpartition(": ")
    return model, work
