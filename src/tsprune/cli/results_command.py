"""`tsprune results`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tsprune.cli.options import Shared, option, with_shared
from tsprune.cli.output import check_table, print_frame, say, write_table
from tsprune.errors import TspruneError
from tsprune.files import check_files, existing_file
from tsprune.text import count

_SHOWN = [
    "model",
    "ablation",
    "mode",
    "configuration",
    "status",
    "count",
    "MASE",
    "CRPS",
    "spearman_distance",
]


@with_shared("as_json")
def results_command(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="A file made by --store.")],
    where: Annotated[
        list[str] | None,
        option(
            "Only cells whose column matches, e.g. 'ablation=stack.*.mlp', ablation=none, "
            "status=failed; repeatable.",
            metavar="COLUMN=GLOB",
        ),
    ] = None,
    export: Annotated[Path | None, option("Write the cells, all columns, to a .parquet or .csv.")] = None,
    leaderboard: Annotated[
        Path | None, option("Write one ablation of one model as a .csv with GIFT-Eval's 15 columns.")
    ] = None,
    *,
    shared: Shared,
) -> None:
    """Show, filter and export the contents of a results store."""
    filters = _filters(where or [])
    check_table(export, "--export")
    if leaderboard is not None and leaderboard.suffix != ".csv":
        raise TspruneError(f"--leaderboard writes a .csv, not {leaderboard.name!r}")
    check_files(export, leaderboard)
    store = existing_file(store, "results store")
    from tsprune.evaluation import write_all_results
    from tsprune.sweeps import Store

    with Store(store, create=False) as opened:
        frame = opened.frame(filters)
        table = None if leaderboard is None else opened.leaderboard(filters)
    if export is not None:
        write_table(frame, export)
    if leaderboard is not None and table is not None:
        write_all_results(table, leaderboard, str(table["model"].iloc[0]))

    def tables() -> None:
        if export is None and leaderboard is None:
            failed = (frame["status"] == "failed").sum()
            print_frame(frame, f"{store}: {count(len(frame), 'cell')}, {failed} failed", _SHOWN)
        if export is not None:
            say(f"{count(len(frame), 'cell')} written to {export}.")
        if leaderboard is not None and table is not None:
            say(f"{count(len(table), 'configuration')} written to {leaderboard}.")

    shared.report("results", {"cells": frame}, tables)


def _filters(where: list[str]) -> dict[str, str]:
    filters: dict[str, str] = {}
    for condition in where:
        column, equals, pattern = condition.partition("=")
        if not equals or column in filters:
            raise TspruneError(f"--where takes COLUMN=GLOB, each column once, not {condition!r}")
        filters[column] = pattern
    return filters
