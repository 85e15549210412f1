"""Progress of long work: one signature for every function that reports it, and a bar that shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

# (stage, steps done, steps in all); a total of 0 is not known yet
Progress: TypeAlias = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """Reports nothing."""


def within(progress: Progress, stage: str) -> Callable[[int, int], None]:
    """`progress` for work of one stage: the stage is given once."""
    return lambda done, total: progress(stage, done, total)


def any_stage(report: Callable[[int, int], None] | None) -> Progress | None:
    """The inverse of `within`: a report of (done, total) that takes work of every stage."""
    return None if report is None else lambda _stage, done, total: report(done, total)


@contextmanager
def showing(progress: Progress | bool | None) -> Iterator[Progress]:
    """The callable for `progress`: True shows a bar (terminal or notebook), False and None show nothing.

    The bar stands on stderr, one line per stage, and ends with the block.
    """
    if not isinstance(progress, bool):
        yield progress or silent
        return
    if not progress:
        yield silent
        return
    from rich.console import Console  # slow to import, and only needed here
    from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    tasks: dict[str, TaskID] = {}
    with Bars(*columns, console=Console(stderr=True)) as bars:

        def update(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=None)
            bars.update(tasks[stage], completed=done, total=total or None)

        yield update
