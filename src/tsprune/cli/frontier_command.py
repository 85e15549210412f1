"""`tsprune frontier`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tsprune.choices import RUNTIMES
from tsprune.cli.options import (
    MetricOption,
    ModelArgument,
    Shared,
    choice,
    integer,
    option,
    share,
    with_shared,
)
from tsprune.cli.output import as_duration, check_pictures, note, print_frame, say
from tsprune.files import check_files, existing_file, output_folder

if TYPE_CHECKING:
    from tsprune.frontiers import Frontier


@with_shared("suite", "samples", "seed", "batch_size", "memory", "output")
def frontier_command(
    model: ModelArgument,
    output: Annotated[
        Path, option("Folder for the table, the page, models and exports; an earlier run goes on.", "--out")
    ],
    against: Annotated[
        list[str] | None, option("Another model, such as the next smaller of the family; repeatable.")
    ] = None,
    savings: Annotated[
        list[float] | None,
        option(
            "Share of the time that a pruned version saves, e.g. 30%; repeatable; by default 10, 20, 30 and "
            "50 %, and none beside --plan.",
            "--saving",
            parser=share,
            metavar="SHARE",
        ),
    ] = None,
    plans: Annotated[
        list[Path] | None,
        option("File with a plan (JSON, see tsprune.Plan) of another pruned version; repeatable.", "--plan"),
    ] = None,
    recover_steps: Annotated[
        int, integer("Steps of recovery of each pruned version, e.g. 800 (minutes each); 0: none.", least=0)
    ] = 0,
    runtimes: Annotated[
        list[str] | None,
        choice(
            RUNTIMES,
            "--runtime",
            text=f"{', '.join(RUNTIMES)}; repeatable; by default all. The original is always run by torch.",
        ),
    ] = None,
    batch: Annotated[list[int], integer("Series forecast together; repeatable.")] = [1, 8, 64],  # noqa: B006
    rounds: Annotated[int, integer("Timed forecasts of each, in turns with the original.", least=2)] = 20,
    metric: MetricOption = "MASE",
    picture: Annotated[
        Path | None, option("Also draw time against loss to this file (.svg or .png).")
    ] = None,
    *,
    shared: Shared,
) -> None:
    """Measure time against loss of a model as it is, pruned, recovered and exported, and of its siblings.

    The sentences at the top name what to deploy for a loss of 0, 1, 2 and 5 %, decided by the upper end of
    the interval.
    """
    folder = output_folder(output)
    page, table = folder / "frontier.html", folder / "frontier.csv"
    check_files(page, table)
    check_pictures(picture, folder=False)
    for plan in plans or ():
        existing_file(plan, "plan")
    shared.check(model, *(against or ()))
    suite = shared.suite
    from tsprune.cli.output import write_table
    from tsprune.frontiers import frontier
    from tsprune.frontiers.measure_frontier import SAVINGS, recovery_seconds
    from tsprune.report.frontier_page import frontier_picture, write_frontier
    from tsprune.report.stills import write_still

    loaded = shared.load(model, device="cpu")
    shares = savings or (() if plans else SAVINGS)
    if recover_steps and not shared.quiet:
        versions = len(shares) + len(plans or ())
        cost = as_duration(versions * recovery_seconds(loaded, suite, recover_steps))
        note(f"Recovery may take {cost} (h:mm:ss) in all; what is done is kept in {folder}.")
    with shared.running("frontier") as options:
        found = frontier(
            loaded,
            folder,
            against=against or (),
            suite=suite,
            savings=shares,
            plans=plans or (),
            recover_steps=recover_steps,
            runtimes=runtimes or RUNTIMES,
            batches=batch,
            rounds=rounds,
            metric=metric,
            **options,
        )
    write_table(found.frame, table)
    write_frontier(found, page)
    if picture is not None:
        write_still(frontier_picture(found), picture)
    result = {
        "out": output,
        "machine": found.machine,
        "metric": metric,
        "headline": found.headline,
        "advice": found.advice,
        "points": found.frame,
    }
    shared.report("frontier", result, lambda: _print(found, page), skipped=found.skipped)


def _print(found: Frontier, page: Path) -> None:
    from tsprune.evaluation import METRICS

    say(found.headline)
    key = METRICS.named(found.metric).key
    columns = [
        "weights",
        "runtime",
        "batch",
        "ms",
        "time_ratio",
        f"{key}_change",
        f"{key}_low",
        f"{key}_high",
    ]
    print_frame(found.frame, found.title, [*columns, "unbeaten"])
    say(f"Times: {found.machine}. Losses: {found.metric}, with 95 % intervals. The picture: {page}")
