"""Progress of long work: one signature for every function that reports it, and how it is shown.

A terminal gets a bar for each piece of work, anything else (a log, a pipe) a line a minute. The time left is
that of the stage: elapsed time over finished steps, unless the work knows the cost of its steps (`Total`).
"""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from tsprune.errors import printable

if TYPE_CHECKING:
    from rich.console import Console

# (stage, steps done, steps in all); a total of 0 is not known yet
Progress: TypeAlias = Callable[[str, int, int], None]
# (piece of work, stage, steps done, steps in all)
Update: TypeAlias = Callable[[str, str, int, int], None]

_Sized = TypeVar("_Sized", bound=Sized)

DONE = "done"  # the stage of a piece of work that is over
LINE_SECONDS = 60.0
_TICK_SECONDS = 5.0
_FINE = 1000  # steps of a stage whose pieces have unlike steps
NAME_WIDTH = 22  # beside a bar: the end of a longer path says more than its beginning


class Total(int):
    """A number of steps that unlike steps add up to, with the time that those left will take.

    seconds_left : expected, from the last report on
    """

    seconds_left: float

    def __new__(cls, steps: int, seconds_left: float) -> Total:
        total = super().__new__(cls, steps)
        total.seconds_left = seconds_left
        return total

    def __reduce__(self) -> tuple[type[Total], tuple[int, float]]:
        return Total, (int(self), self.seconds_left)


class Weighed:
    """Totals of work whose steps differ in size, when a step takes as long as it is large.

    steps : in all
    size : of all steps, in any unit
    """

    def __init__(self, steps: int, size: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._steps, self._size, self._clock = steps, size, clock
        self._start, self._done = clock(), 0.0

    def total(self, size: float) -> Total:
        """The total after another step (or several) of this size."""
        self._done += size
        elapsed = self._clock() - self._start
        return Total(self._steps, elapsed * max(0.0, self._size - self._done) / self._done)


class Pieces:
    """Progress of a stage that consists of several pieces of work in a row, each with progress of its own.

    report : called with (done, `Total`) of the stage
    sizes : of the pieces, in units that take about equal time. A piece that never reports (its result was
        known) does not count, and one of size 0 reports nothing: its time says nothing of others'
    """

    def __init__(
        self,
        report: Callable[[int, int], None],
        sizes: Sequence[float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._report, self._sizes, self._clock = report, tuple(sizes), clock
        self._piece, self._start, self._made, self._last = -1, 0.0, 0.0, 0.0

    def next(self) -> Progress:
        """Progress of the next piece, with stages of any name."""
        self._piece += 1
        before, now = self._made, self._clock()
        began = self._start + now - self._last if before else now
        piece, size, later = StageClock(self._clock), self._sizes[self._piece], self._sizes[self._piece + 1 :]
        piece.after("", 0, 0)  # its time begins here
        if not size:
            return silent

        def progress(_stage: str, done: int, total: int) -> None:
            share, left = piece.after("", done, total)
            self._start, self._made, self._last = began, before + share * size, self._clock()
            if not self._made:
                return
            rate = (self._clock() - began) / self._made
            by_size = size * (1 - share) * rate  # the piece itself knows more when more of it is done
            left = by_size if left is None else share * left + (1 - share) * by_size
            whole = before + size + sum(later)
            self._report(round(_FINE * self._made / whole), Total(_FINE, left + rate * sum(later)))

        return progress


class StageClock:
    """Time left of the stage that a piece of work is in."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stage: str | None = None
        self._start, self._first, self._last = 0.0, 0, 0

    def after(self, stage: str, done: int, total: int) -> tuple[float, float | None]:
        """(share of the stage that is over, seconds left or None if unknown) after a report."""
        now = self._clock()
        again = bool(total) and done < self._last
        if stage != self._stage or again:
            self._stage, self._start, self._first, self._last = stage, now, done, done
        self._last = done if total else self._last
        elapsed, left = now - self._start, getattr(total, "seconds_left", None)
        if left is None and done > self._first:
            left = elapsed * (total - done) / (done - self._first)
        if total and done >= total:
            return 1.0, 0.0
        if not total:
            return 0.0, None
        if isinstance(total, Total) and elapsed + total.seconds_left:
            return elapsed / (elapsed + total.seconds_left), left
        return done / total, left


def silent(stage: str, done: int, total: int) -> None:
    """Reports nothing."""


def within(progress: Progress, stage: str) -> Callable[[int, int], None]:
    """`progress` for work of one stage: the stage is given once."""
    return lambda done, total: progress(stage, done, total)


def part_of(progress: Progress, name: str) -> Progress:
    """`progress` for one piece of work among several: its stages are called "<name>: <stage>"."""
    return lambda stage, done, total: progress(f"{name}: {stage}", done, total)


def any_stage(report: Callable[[int, int], None] | None) -> Progress | None:
    """The inverse of `within`: a report of (done, total) that takes work of every stage."""
    return None if report is None else lambda _stage, done, total: report(done, total)


def counted(
    parts: Sequence[_Sized], progress: Progress | bool | None, stage: str
) -> Generator[_Sized, None, None]:
    """Yields `parts`; as many steps as a part is long are reported when the next is asked for."""
    total, done = sum(map(len, parts)), 0
    with showing(progress) as report:
        report(stage, 0, total)
        for part in parts:
            yield part
            done += len(part)
            report(stage, done, total)


@contextmanager
def showing(progress: Progress | bool | None) -> Iterator[Progress]:
    """The callable for `progress`: True shows it on stderr (see `display`), False and None show nothing."""
    if not isinstance(progress, bool):
        yield progress or silent
    elif not progress:
        yield silent
    else:
        with display() as update:
            yield lambda stage, done, total: update(stage, stage, done, total)


@contextmanager
def display(console: Console | None = None, *, quiet: bool = False) -> Iterator[Update]:
    """Shows pieces of work on `console` (default: stderr), each with its stage, while the context lasts."""
    if quiet:
        yield lambda *_: None
        return
    from rich.console import Console  # slow to import, and only needed here

    console = console or Console(stderr=True)
    if not (console.is_terminal or console.is_jupyter):
        with _Lines(console).kept_alive() as update:
            yield update
        return
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(14),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left {task.fields[left]}"),
    )
    with Bars(*columns, console=console) as bars:
        tasks: dict[str, tuple[int, StageClock]] = {}

        def update(name: str, stage: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=None, left=_duration(None)), StageClock()
            task, clock = tasks[name]
            share, left = (1.0, 0.0) if stage == DONE else clock.after(stage, done, total)
            known = bool(total) or stage == DONE
            bars.update(
                task,  # type: ignore[arg-type]
                description=_described(_shortened(name), stage),
                completed=share,
                total=1.0 if known else None,
                left=_duration(left),
            )

        yield update


class _Lines:
    """Lines about progress, at most one a minute for each piece of work, without control characters.

    In a minute without any, `tick` repeats the latest report: a step may take longer.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._start = self._written = clock()
        self._last: dict[str, float] = {}
        self._stages: dict[str, StageClock] = {}
        self._latest: tuple[float, str, str, float, float | None] | None = None
        self._lock = threading.Lock()

    def update(self, name: str, stage: str, done: int, total: int) -> None:
        with self._lock:
            share, left = self._stages.setdefault(name, StageClock(self._clock)).after(stage, done, total)
            now = self._clock()
            self._latest = None if stage == DONE else (now, name, stage, share, left)
            if now - self._last.get(name, self._start) < LINE_SECONDS or stage == DONE:
                return
            self._last[name] = now
            self._print(name, stage, "" if left is None else f" {100 * share:.0f} %, {_duration(left)} left")

    def tick(self) -> None:
        """Writes the latest report again if for a minute none came and nothing was written."""
        with self._lock:
            if self._latest is None:
                return
            then, name, stage, share, left = self._latest
            now = self._clock()
            since = now - then
            if min(since, now - self._written) < LINE_SECONDS:
                return
            known = "" if left is None else f" {100 * share:.0f} %"
            if left is not None and left > since:
                known += f", {_duration(left - since)} left"
            self._print(name, stage, f"{known}, no step for {_duration(since)}")

    def _print(self, name: str, stage: str, rest: str) -> None:
        self._written = self._clock()
        self._console.print(
            _described(printable(name), stage) + rest, markup=False, highlight=False, soft_wrap=True
        )

    @contextmanager
    def kept_alive(self) -> Iterator[Update]:
        """`update`, while a thread ticks."""
        over = threading.Event()

        def ticking() -> None:
            while not over.wait(_TICK_SECONDS):
                self.tick()

        thread = threading.Thread(target=ticking, name="progress", daemon=True)
        thread.start()
        try:
            yield self.update
        finally:
            over.set()
            thread.join()


def _shortened(name: str) -> str:
    name = printable(name)
    return name if len(name) <= NAME_WIDTH else f"…{name[1 - NAME_WIDTH :]}"


def _described(name: str, stage: str) -> str:
    return name if stage == name else f"{name}: {stage}"


def _duration(seconds: float | None) -> str:
    return "-:--:--" if seconds is None else str(datetime.timedelta(seconds=round(seconds)))
