"""`tsprune check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tsprune.choices import CHECKED
from tsprune.cli.options import ModelArgument, Shared, choice, option, portion, with_shared
from tsprune.cli.output import print_frame, say
from tsprune.files import check_files, existing_file, user_path


@with_shared("suite", "dtype", "run", "output")
def check_command(
    model: ModelArgument,
    baseline: Annotated[str, option("Baseline file (.json) or another model, named as MODEL is.")],
    max_loss: Annotated[float, portion("Largest relative loss of MASE and CRPS, as 1% or 0.01.")] = 0.01,
    max_slowdown: Annotated[float, portion("Largest relative rise of the time of a forecast.")] = 0.1,
    max_drift: Annotated[
        float, portion("Largest rise of stable ranks (relative) and of the share of redundant heads.")
    ] = 0.1,
    measures: Annotated[
        list[str] | None, choice(CHECKED, "--measure", text="Only this measure; repeatable.")
    ] = None,
    write_baseline: Annotated[
        bool, option("Measure MODEL and write the file --baseline instead.", "--write-baseline")
    ] = False,
    *,
    shared: Shared,
) -> None:
    """Compare a checkpoint with a baseline, for CI: exit code 1 if it is shown to be worse."""
    is_file = write_baseline or baseline.lower().endswith(".json") or user_path(baseline).is_file()
    if write_baseline:
        check_files(Path(baseline))
    elif is_file:
        existing_file(baseline, "baseline")
    shared.check(model, *([] if is_file else [baseline]), exported=True)
    suite = shared.suite
    from tsprune.pruning import Baseline
    from tsprune.pruning.gate import check

    wanted = tuple(measures or CHECKED)
    before = Baseline.load(baseline) if is_file and not write_baseline else None
    loaded = shared.predictor(model)
    if write_baseline:
        with shared.running("baseline") as options:
            found = Baseline.measure(loaded, suite, measures=wanted, **options)  # type: ignore[arg-type]
        found.save(baseline)
        shared.report(
            "check",
            {"out": baseline, "measured": [name for name in wanted if name not in dict(found.skipped)]},
            lambda: say(f"{model}: baseline on {suite.name} written to {baseline}"),
            skipped=(*suite.skipped, *found.skipped),
        )
        return
    with shared.running("check") as options:
        table = check(
            loaded,
            before or shared.predictor(baseline),
            suite=suite,
            max_loss=max_loss,
            max_slowdown=max_slowdown,
            max_drift=max_drift,
            measures=wanted,  # type: ignore[arg-type]
            **options,
        )

    def tables() -> None:
        print_frame(table.frame, table.title)
        say(
            f"Shown to be worse: {', '.join(table.worse)}."
            if table.worse
            else "Nothing is shown to be worse."
        )

    result = {"baseline": baseline, "worse": table.worse, "measures": table.frame}
    shared.report("check", result, tables, skipped=table.skipped)
    if table.worse:
        raise typer.Exit(1)
