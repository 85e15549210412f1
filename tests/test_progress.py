"""Progress: the time left is that of the stage, bars stand on terminals, and anything else gets lines."""

from __future__ import annotations

import io
import pickle
import threading
import time

import pytest
from rich.console import Console

from tsprune.progress import (
    LINE_SECONDS,
    Pieces,
    StageClock,
    Total,
    Weighed,
    _Lines,
    counted,
    display,
    showing,
)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def shown(*steps: tuple[str, str, int, int], width: int = 80) -> list[str]:
    """The bars' last state, as lines of a terminal."""
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=width)
    with display(console) as update:
        for step in steps:
            update(*step)
    written: str = console.file.getvalue()  # type: ignore[attr-defined]
    return [line.rstrip() for line in written.replace("\r", "\n").splitlines() if "left" in line][-2:]


def test_equal_steps_take_equally_long() -> None:
    clock = Clock()
    stage = StageClock(clock)
    assert stage.after("ablating", 0, 40) == (0.0, None)
    clock.now += 6
    assert stage.after("ablating", 10, 40) == (0.25, 18.0)
    clock.now += 14
    assert stage.after("ablating", 20, 40) == (0.5, 20.0)
    assert stage.after("ablating", 40, 40) == (1.0, 0.0)


def test_a_stage_has_a_clock_of_its_own() -> None:
    """Also a stage of the same name that begins anew, and one that goes on from where it was stopped."""
    clock = Clock()
    stage = StageClock(clock)
    stage.after("scoring", 0, 10)
    clock.now += 1000
    stage.after("scoring", 10, 10)
    assert stage.after("training", 600, 800) == (0.75, None)
    clock.now += 5
    assert stage.after("training", 650, 800) == (0.8125, 15.0)
    stage.after("training", 0, 800)
    clock.now += 2
    assert stage.after("training", 100, 800) == (0.125, 14.0)


def test_a_total_that_knows_the_time_left_is_believed() -> None:
    clock = Clock()
    stage = StageClock(clock)
    stage.after("ablating", 0, Total(100, 30.0))
    clock.now += 10
    assert stage.after("ablating", 50, Total(100, 30.0)) == (0.25, 30.0)
    total = pickle.loads(pickle.dumps(Total(100, 30.0)))  # as it comes from another process
    assert (total, total.seconds_left) == (100, 30.0)


def test_steps_of_unlike_size_take_time_by_their_size() -> None:
    clock = Clock()
    weighed = Weighed(4, 100.0, clock)
    clock.now += 8
    assert weighed.total(40.0).seconds_left == 12.0
    clock.now += 2
    assert weighed.total(10.0).seconds_left == 10.0


@pytest.mark.parametrize("known", [0, 1])
@pytest.mark.parametrize("wrong", [0.7, 1.0, 1.4])
def test_the_time_left_of_several_pieces_is_right_from_the_first_tenth_on(wrong: float, known: int) -> None:
    """Within a factor of 1.5, where the sizes of pieces are up to 40 % off, and a piece was remembered."""
    sizes, steps = (3.0, 5.0, 4.0, 1.0), 20
    seconds = [2.0 * size * (wrong if number == 2 else 1) for number, size in enumerate(sizes)]
    clock = Clock()
    stage = StageClock(clock)
    told: list[tuple[float, float]] = []

    def report(done: int, total: int) -> None:
        share, left = stage.after("chaos", done, total)
        assert left is not None
        assert 0 <= share <= 1
        told.append((clock.now, left))

    pieces = Pieces(report, sizes, clock)
    stage.after("chaos", 0, 0)
    start = clock.now
    for number, whole in enumerate(seconds):
        progress = pieces.next()
        for step in range(steps if number >= known else 0):
            clock.now += whole / steps
            progress("any", step + 1, steps)
    end = clock.now
    for now, left in told:
        if 0.1 <= (now - start) / (end - start) <= 0.9:
            assert 1 / 1.5 <= left / (end - now) <= 1.5
    assert told[-1][1] == 0


def test_work_of_another_kind_says_nothing_of_the_time_left() -> None:
    clock = Clock()
    told: list[float] = []
    pieces = Pieces(lambda _, total: told.append(total.seconds_left), (0.0, 1.0, 0.0, 3.0), clock)  # type: ignore[attr-defined]
    for seconds in (50.0, 10.0, 70.0, 30.0):
        progress = pieces.next()
        for step in range(2):
            clock.now += seconds / 2
            progress("any", step + 1, 2)
    assert told == [35.0, 30.0, 15.0, 0.0]


def test_parts_are_counted_by_their_length() -> None:
    told: list[tuple[str, int, int]] = []
    assert list(counted(["ab", "c"], lambda *step: told.append(step), "parts")) == ["ab", "c"]
    assert told == [("parts", 0, 3), ("parts", 2, 3), ("parts", 3, 3)]


def test_a_log_gets_a_line_a_minute_without_control_characters() -> None:
    console, clock = Console(file=io.StringIO(), width=30), Clock()
    lines = _Lines(console, clock)
    path = "/a/long/path/to/the/folder/of/a[bold]/model\x1b[2J"
    for second in range(0, 200):
        clock.now = 100.0 + second
        lines.tick()  # writes nothing while steps go on
        lines.update(path, "ablating", second, 400)
    lines.update(path, "done", 1, 1)
    written = console.file.getvalue()  # type: ignore[attr-defined]
    assert written.splitlines() == [
        f"/a/long/path/to/the/folder/of/a[bold]/model\\x1b[2J: ablating {share} %, {left} left"
        for share, left in (("15", "0:05:40"), ("30", "0:04:40"), ("45", "0:03:40"))
    ]
    assert LINE_SECONDS == 60


def test_a_step_of_several_minutes_leaves_a_line_a_minute() -> None:
    console, clock = Console(file=io.StringIO(), width=30), Clock()
    lines = _Lines(console, clock)
    for second in range(0, 400):
        clock.now = 100.0 + second
        if second in (0, 70):
            lines.update("m", "exporting", second // 70, 3)
        if second == 290:
            lines.update("m", "timing", 0, 0)
        if second == 370:
            lines.update("m", "done", 1, 1)
        lines.tick()
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "m: exporting, no step for 0:01:00",
        "m: exporting 33 %, 0:02:20 left",
        "m: exporting 33 %, 0:01:20 left, no step for 0:01:00",
        "m: exporting 33 %, 0:00:20 left, no step for 0:02:00",
        "m: exporting 33 %, no step for 0:03:00",
        "m: timing",
        "m: timing, no step for 0:01:00",
    ]


def test_a_log_is_ticked_by_a_thread_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tsprune.progress.LINE_SECONDS", 0.0)
    monkeypatch.setattr("tsprune.progress._TICK_SECONDS", 0.01)
    console = Console(file=io.StringIO())
    with display(console) as update:
        update("m", "exporting", 0, 2)
        deadline = time.monotonic() + 20
        while "no step" not in console.file.getvalue() and time.monotonic() < deadline:  # type: ignore[attr-defined]
            time.sleep(0.01)
    assert "m: exporting, no step for 0:00:00" in console.file.getvalue()  # type: ignore[attr-defined]
    assert "progress" not in {thread.name for thread in threading.enumerate()}


def test_short_work_leaves_no_line_in_a_log() -> None:
    console = Console(file=io.StringIO())
    with display(console) as update:
        update("m", "ablating", 1, 2)
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]


def test_a_model_that_is_explained_is_not_said_to_be_done() -> None:
    first, second = shown(
        ("bundled:toto", "ablating", 700, 700),
        ("bundled:toto", "intervals", 0, 0),
        ("bundled:chronos-bolt", "ablating", 10, 40),
    )
    assert "bundled:toto: intervals" in first
    assert "100 %" not in first
    assert "bundled:chronos-bolt: ablating" in second
    assert " 25 %" in second


def test_a_model_that_is_done_is_full() -> None:
    ablating, effects = ("m", "ablating", 1, 9), ("m", "effects", 0, 0)
    *_, line = shown(ablating, effects, ("m", "done", 0, 0))
    assert "m: done" in line
    assert "100 %" in line


def test_long_names_are_cut_and_leave_room_for_the_numbers() -> None:
    *_, line = shown(("a/path/" + "x" * 100 + "/[red]end", "ablating", 1, 2))
    assert "xx/[red]end: ablating" in line
    assert len(line) <= 80
    assert " 50 %" in line


def test_true_shows_every_stage(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, for rich
    with showing(True) as progress:
        progress("baseline", 1, 2)
        progress("heads", 3, 3)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "baseline" in captured.err
    assert "heads" in captured.err
