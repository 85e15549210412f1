"""What commands print: tables, JSON, progress."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from tsprune.errors import one_line, printable

if TYPE_CHECKING:
    import pandas as pd

    from tsprune.models.forecaster import Evidence

out, err = Console(), Console(stderr=True)
NAME_WIDTH = 22  # of models beside a bar: the end of a longer path says more than its beginning


@contextmanager
def progress_bar(label: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    with _bars(quiet=quiet) as progress:
        task = progress.add_task(label, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def stage_bars(console: Console = err) -> Iterator[Callable[[str, str, int, int], None]]:
    """A bar for each model that comes up, with the stage it is in; empty while nothing is counted."""
    with _bars(console, bar_width=14) as progress:
        tasks: dict[str, TaskID] = {}

        def update(model: str, stage: str, done: int, total: int) -> None:
            if model not in tasks:
                tasks[model] = progress.add_task(model, total=None)
            if stage == "done":
                done = total = 1
            name = printable(model)
            name = name if len(name) <= NAME_WIDTH else f"…{name[1 - NAME_WIDTH :]}"
            progress.update(tasks[model], description=f"{name}: {stage}", completed=done, total=total or None)

        yield update


def _bars(console: Console = err, *, quiet: bool = False, bar_width: int = 40) -> Progress:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    # where nobody watches (a log, a pipe) there is no bar
    return Progress(*columns, console=console, disable=quiet or not console.is_terminal)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows for JSON, numbers to the last bit; what is missing or infinite is null."""
    known = frame.notna() & ~frame.isin([float("inf"), float("-inf")])
    rows: list[dict[str, Any]] = frame.astype(object).where(known, None).to_dict("records")
    return rows


def print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2))


def _cell(value: object) -> str:
    if value is None or value != value:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else printable(str(value))


# columns that name a row are whole, unless a name is long (a path is): then there would be no room for others
_NAMES = ("address", "ablation", "configuration", "model")
_LONG = 32
_FOLDED = 6  # characters a line that other words are left at least


def print_frame(frame: pd.DataFrame, title: str, columns: list[str] | None = None) -> None:
    """A table of `columns` (all by default), whose numbers stay whole in a narrow terminal.

    There words that are the same in all rows go to the title, and names fold, as other words always may.
    """
    chosen = list(frame.columns) if columns is None else columns
    cells = {column: [_cell(value) for value in frame[column]] for column in chosen}
    numeric = {column for column in chosen if frame[column].dtype.kind in "fiu"}
    if not _fits(_widths(cells, folded=False).values()) and len(frame) > 1:
        same = [column for column in chosen if column not in numeric and len({*cells[column]}) == 1]
        title = "; ".join([title, *(f"{_words(column)} {cells.pop(column)[0]}" for column in same)])
    # not the table's own title, which is as wide as the table and no wider
    out.print(printable(title), style="italic", markup=False, highlight=False, soft_wrap=True)
    out.print(_table(cells, numeric))


def _table(cells: dict[str, list[str]], numeric: set[str]) -> Table:
    widths = _widths(cells, folded=True)
    names = {column for column in widths.keys() - numeric if column in _NAMES and widths[column] <= _LONG}
    least = [width if c in numeric | names else min(width, _FOLDED) for c, width in widths.items()]
    roomy = _fits(_widths(cells, folded=False).values())
    table = Table()
    for column, width in widths.items():
        table.add_column(
            _words(column),
            justify="right" if column in numeric else "left",
            min_width=width if column in numeric else None,
            max_width=width if column in numeric and not roomy else None,
            no_wrap=column in names and _fits(least),
            overflow="ellipsis" if column in numeric else "fold",
        )
    for row in zip(*cells.values(), strict=True):
        table.add_row(*map(Text, row))  # words of users, in which [bold] is no markup
    return table


def _words(column: str) -> str:
    return column.replace("_", " ")


def _widths(cells: dict[str, list[str]], *, folded: bool) -> dict[str, int]:
    """Of each column: the longest cell, or heading (if it is folded: word of it)."""
    headings = {column: _words(column).split() if folded else [_words(column)] for column in cells}
    return {column: max(map(len, [*headings[column], *found])) for column, found in cells.items()}


def _fits(widths: Collection[int]) -> bool:
    """Whether columns so wide fit into a line, their borders included."""
    return sum(widths) + 3 * len(widths) + 1 <= out.width


def print_evidence(first: str, evidence: Evidence) -> None:
    """A line about a checkpoint that was written, then one for each figure before and after."""
    lines = [first]
    lines += [
        f"{name}: {was:.4g} -> {now:.4g}, {''.join(change)}" for name, (was, now, *change) in evidence.items()
    ]
    for line in lines:
        out.print(printable(line), highlight=False, soft_wrap=True, markup=False)


def evidence_record(evidence: Evidence) -> dict[str, dict[str, float | str]]:
    """Figures before and after, for JSON."""
    return {
        name: {"before": row[0], "after": row[1], "change": "".join(row[2:])}
        for name, row in evidence.items()
    }


def print_skipped(skipped: list[tuple[str, str]]) -> None:
    if skipped:
        err.print(f"[yellow]{len(skipped)} left out:[/]")
        for what, reason in skipped:
            err.print(f"  {one_line(what)}: {one_line(reason)}", markup=False, highlight=False)


def print_failed(failed: list[tuple[str, str]]) -> None:
    """The cells of a sweep that raised."""
    err.print(f"[red]failed cells: {len(failed)}[/] (the next run with this store tries them again)")
    for what, error in failed:
        err.print(f"  {one_line(what)}: {one_line(error)}", markup=False, highlight=False, soft_wrap=True)
