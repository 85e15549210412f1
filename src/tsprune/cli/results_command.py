"""`tsprune results`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tsprune.cli.options import JsonOption
from tsprune.cli.output import print_frame, print_json, records
from tsprune.errors import TspruneError
from tsprune.files import check_files

if TYPE_CHECKING:
    import pandas as pd

SHOWN = ["model", "ablation", "mode", "configuration", "status", "count", "mase", "crps", "spearman_distance"]


def results_command(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="A file made by --store.")],
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            metavar="COLUMN=GLOB",
            help="Only cells whose column matches, e.g. 'ablation=stack.*.mlp', ablation=none, "
            "status=failed; repeatable.",
        ),
    ] = None,
    export: Annotated[
        Path | None, typer.Option("--export", help="Write the cells, all columns, to a .parquet or .csv.")
    ] = None,
    leaderboard: Annotated[
        Path | None,
        typer.Option(
            "--leaderboard", help="Write one ablation of one model as a .csv with GIFT-Eval's 15 columns."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show, filter and export what a results store holds."""
    from tsprune.evaluation import write_all_results
    from tsprune.sweeps import Store

    filters = _filters(where or [])
    if export is not None and export.suffix not in (".parquet", ".csv"):
        raise TspruneError(f"--export writes .parquet or .csv, not {export.name!r}")
    if leaderboard is not None and leaderboard.suffix != ".csv":
        raise TspruneError(f"--leaderboard writes a .csv, not {leaderboard.name!r}")
    check_files(export, leaderboard)
    with Store(store, create=False) as opened:
        frame = opened.frame(filters)
        table = None if leaderboard is None else opened.leaderboard(filters)
    if export is not None:
        _write(frame, export)
    if leaderboard is not None and table is not None:
        write_all_results(table, leaderboard, str(table["model"].iloc[0]))
    if as_json:
        print_json(records(frame))
    elif export is None and leaderboard is None:
        failed = frame["status"] == "failed"
        print_frame(frame, f"{store}: {len(frame)} cells, {failed.sum()} failed", SHOWN)


def _filters(where: list[str]) -> dict[str, str]:
    filters: dict[str, str] = {}
    for condition in where:
        column, equals, pattern = condition.partition("=")
        if not equals or column in filters:
            raise TspruneError(f"--where takes COLUMN=GLOB, each column once, not {condition!r}")
        filters[column] = pattern
    return filters


def _write(frame: pd.DataFrame, path: Path) -> None:
    from tsprune.atomic import write_whole

    if path.suffix == ".csv":
        content = frame.to_csv(index=False).encode()
    else:
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
        content = buffer.getvalue()
    write_whole(path, content)
