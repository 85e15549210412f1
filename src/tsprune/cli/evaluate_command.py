"""`tsprune evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tsprune.choices import SEASONAL_NAIVE
from tsprune.cli.options import Shared, option, with_shared
from tsprune.cli.output import print_frame, say
from tsprune.files import check_files, output_folder

if TYPE_CHECKING:
    from tsprune.data.suite import Suite


@with_shared("suite", "model", "batch_size", "output")
def evaluate_command(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help=f"A model as for the other commands, or {SEASONAL_NAIVE}.")
    ],
    output: Annotated[
        Path | None, option("Folder for all_results.csv (GIFT-Eval's columns).", "--out")
    ] = None,
    dry_run: Annotated[
        bool, option("Only show how --data is understood: series, windows, gaps.", "--dry-run")
    ] = False,
    *,
    shared: Shared,
) -> None:
    """Score a model as GIFT-Eval does: MASE and CRPS, also relative to Seasonal Naive."""
    shared.check(*([] if model == SEASONAL_NAIVE else [model]), exported=True)
    if output is not None:
        output = output_folder(output)
        check_files(output / "all_results.csv")
    suite = shared.suite
    if dry_run:
        _show_data(shared, suite)
        return
    from tsprune.evaluation import evaluate, geometric_mean_ratios, write_all_results
    from tsprune.evaluation.single_series import unread

    loaded = model if model == SEASONAL_NAIVE else shared.predictor(model)
    with shared.running("evaluate") as options:
        table = evaluate(loaded, suite, **options)  # type: ignore[arg-type]
    if output is not None:
        write_all_results(table.frame, output / "all_results.csv", model)
    means = {f"{metric}_ratio": value for metric, value in geometric_mean_ratios(table).items()}

    def tables() -> None:
        shown = ["configuration", "windows", "MASE", "CRPS", "MASE_ratio", "CRPS_ratio"]
        print_frame(table.frame, table.title, shown)
        figures = ", ".join(f"{name.removesuffix('_ratio')} {value:.4f}" for name, value in means.items())
        say(f"Relative to Seasonal Naive (geometric mean): {figures}")

    result = {"configurations": table.frame, "geometric_mean": means}
    notes = () if isinstance(loaded, str) else unread(loaded, suite)
    shared.report("evaluate", result, tables, skipped=table.skipped, notes=notes)


def _show_data(shared: Shared, suite: Suite) -> None:
    """The suite as it was understood, and what was left out of it."""
    found = suite.describe()
    beside = {"num_variates": suite.multivariate, "num_covariates": suite.has_covariates}
    several = [name for name, shown in beside.items() if shown]
    names = ("configuration", "season", "windows", "series", *several, "shortest", "longest", "gaps")
    shown = [name for name in names if name in found]

    def tables() -> None:
        print_frame(found, repr(suite).strip("<>"), shown)
        if suite.about:
            say(suite.about[0].upper() + suite.about[1:])
        if suite.multivariate:
            say("Several columns are variates of one series; models that can read them together do")
        if suite.has_covariates:
            say("Models of families with past covariates read them; others ignore them")

    shared.report("evaluate", {"about": suite.about, "suite": found}, tables, skipped=suite.skipped)
