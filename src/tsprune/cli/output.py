"""Output of the commands: tables, JSON, progress."""

from __future__ import annotations

import dataclasses
import datetime
import io
import json
import math
from collections.abc import Collection, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import tsprune
from tsprune.choices import PICTURE_FORMS
from tsprune.errors import TspruneError, one_line, printable
from tsprune.extras import install
from tsprune.files import check_files, output_folder

if TYPE_CHECKING:
    import pandas as pd

    from tsprune.models.forecaster import Evidence
    from tsprune.sweeps.cost_estimate import StageCost

SCHEMA_VERSION = 1  # of the JSON; docs/json.md describes it

out, err = Console(), Console(stderr=True)


def print_json(
    command: str,
    result: Mapping[str, object],
    *,
    skipped: Sequence[tuple[str, str]] = (),
    failed: Sequence[tuple[str, str]] = (),
    notes: Sequence[str] = (),
) -> None:
    """The one form that every command's JSON has (docs/json.md)."""
    whole = {
        "schema_version": SCHEMA_VERSION,
        "tsprune": tsprune.__version__,
        "command": command,
        "result": result,
        "skipped": [{"what": what, "reason": reason} for what, reason in skipped],
        "failed": [{"what": what, "error": error} for what, error in failed],
        "notes": list(notes),
    }
    typer.echo(json.dumps(_plain(whole), indent=2, allow_nan=False))


def _plain(value: Any) -> Any:
    """A value as JSON: tables become lists of rows; missing and infinite values become null."""
    if hasattr(value, "to_dict"):  # a DataFrame; pandas need not be imported to know one
        value = value.to_dict("records")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):  # a number of NumPy
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


# columns that tell what a row is about: whole, unless one leaves no room for a column beside it (a long path)
_NAMES = ("model", "address", "ablation", "configuration", "part", "forecaster", "measure", "family")
_ROOM = 20  # characters of a line that a name leaves to others
_TEXT = 24  # characters a line that other words have at least


def print_frame(frame: pd.DataFrame, title: str, columns: Sequence[str] | None = None) -> None:
    """A table of `columns` (all by default), whose names and numbers are whole at any width.

    What does not fit beside them, in this order: words that are the same in all rows go to the title, rows of
    one name get a table of their own, and columns go on in another table below.
    """
    chosen = list(frame.columns) if columns is None else list(columns)
    print_rows(
        frame[chosen].to_dict("records"), title, {name for name in chosen if frame[name].dtype.kind in "fiu"}
    )


def print_rows(
    rows: Sequence[Mapping[str, object]], title: str, numeric: Collection[str] | None = None
) -> None:
    """`print_frame` of rows with the same keys.

    numeric : columns of numbers, which stand on the right; None goes by the first row
    """
    first = rows[0] if rows else {}
    if numeric is None:
        numeric = [name for name, value in first.items() if isinstance(value, int | float)]
    cells = {name: [_cell(row[name]) for row in rows] for name in first}
    if len(rows) > 1 and not _Columns(cells, numeric).fit(cells):
        same = [name for name in cells if name not in numeric and len({*cells[name]}) == 1]
        title = "; ".join([title, *(f"{_words(name)} {cells.pop(name)[0]}" for name in same)])
    _Columns(cells, numeric).print(title)


class _Columns:
    """Cells by column, and how wide they are."""

    def __init__(self, cells: dict[str, list[str]], numeric: Collection[str]) -> None:
        self.cells, self.numeric = cells, numeric
        self.names = [name for name in cells if name in _NAMES]
        self.others = [name for name in cells if name not in _NAMES]

    def width(self, name: str) -> int:
        """Width of the longest cell or word of the heading; less where words fold."""
        needed = max(map(len, [*_words(name).split(), *self.cells[name]]))
        if name in self.numeric or self.whole(name, needed):
            return needed
        return min(needed, out.width // 2 if name in self.names else _TEXT)

    def whole(self, name: str, width: int) -> bool:
        """Whether a column of this width holds names that never fold."""
        return name in self.names and width <= out.width - _ROOM

    def fit(self, names: Collection[str]) -> bool:
        """Whether these columns fit into a line, their borders included."""
        return sum(self.width(name) + 3 for name in names) < out.width

    def print(self, title: str) -> None:
        """One table, or one for each value of the first name where names are too wide together."""
        widest = max(self.others, key=self.width, default=None)
        if len(self.names) > 1 and widest is not None and not self.fit([*self.names, widest]):
            first = self.names[0]
            for value in dict.fromkeys(self.cells[first]):
                rows = [place for place, found in enumerate(self.cells[first]) if found == value]
                part = {name: [self.cells[name][row] for row in rows] for name in self.cells if name != first}
                _Columns(part, self.numeric).print(f"{title}; {_words(first)} {value}")
            return
        # not the table's own title, which is as wide as the table and no wider
        out.print(printable(title), style="italic", markup=False, highlight=False, soft_wrap=True)
        for block in self._blocks():
            out.print(self._table([name for name in self.cells if name in block]))

    def _blocks(self) -> list[list[str]]:
        """Columns of one table after the other: all names, and as many others as fit beside them."""
        blocks = [list(self.names)]
        for name in self.others:
            if len(blocks[-1]) > len(self.names) and not self.fit([*blocks[-1], name]):
                blocks.append(list(self.names))
            blocks[-1].append(name)
        return blocks

    def _table(self, names: list[str]) -> Table:
        table = Table()
        # headings stay on one line where there is room for all of them
        roomy = sum(max(self.width(name), len(_words(name))) + 3 for name in names) < out.width
        for name in names:
            number, whole = name in self.numeric, self.whole(name, max(map(len, self.cells[name])))
            table.add_column(
                _words(name),
                justify="right" if number else "left",
                max_width=self.width(name) if number and not roomy else None,
                no_wrap=number or whole,
                overflow="fold",
            )
        for row in zip(*(self.cells[name] for name in names), strict=True):
            table.add_row(*map(Text, row))  # words of users, in which [bold] is no markup
        return table


def _cell(value: object) -> str:
    if value is None or value != value:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else printable(str(value))


def _words(column: str) -> str:
    return column.replace("_", " ")


def say(text: str) -> None:
    """A line of plain text on stdout; words of users are shown as they are."""
    out.print(printable(text), markup=False, highlight=False, soft_wrap=True)


def note(text: str) -> None:
    """A line of plain text on stderr."""
    err.print(one_line(text), markup=False, highlight=False, soft_wrap=True)


def print_evidence(first: str, evidence: Evidence) -> None:
    """A line about a checkpoint that was written, then one for each figure before and after."""
    say(first)
    for name, (was, now, *text) in evidence.items():
        say(f"{name}: {was:.4g} -> {now:.4g}, {''.join(text)}")


def evidence_rows(evidence: Evidence) -> list[dict[str, object]]:
    """Figures before and after, for JSON."""
    return [
        {"figure": name, "before": was, "after": now, "text": "".join(text)}
        for name, (was, now, *text) in evidence.items()
    ]


def as_duration(seconds: float) -> str:
    """A time as h:mm:ss, rounded up."""
    return str(datetime.timedelta(seconds=math.ceil(seconds)))


def print_costs(name: str, stages: Sequence[StageCost]) -> None:
    """The expected cost of each stage of a piece of work, and of all together."""
    rows: list[dict[str, object]] = [
        {
            "stage": one.stage,
            "forecasts": one.forecasts,
            "time": as_duration(one.seconds),
            "memory (GB)": f"{one.peak_bytes / 1e9:.1f}",
        }
        for one in stages
    ]
    print_rows(rows, f"{name}: expected cost on this machine, forecasts of a batch")
    whole = as_duration(sum(one.seconds for one in stages))
    say(f"In all about {whole} (h:mm:ss) and {max(one.peak_bytes for one in stages) / 1e9:.1f} GB of memory.")


def print_skipped(skipped: Sequence[tuple[str, str]]) -> None:
    """Prints the windows and configurations that were left out, with reasons, on stderr."""
    if skipped:
        err.print(f"[yellow]{len(skipped)} left out:[/]")
        for what, reason in skipped:
            note(f"  {one_line(what)}: {one_line(reason)}")


def print_failed(failed: Sequence[tuple[str, str]]) -> None:
    """The cells of a sweep that raised, on stderr."""
    err.print(f"[red]failed cells: {len(failed)}[/] (the next run with this store tries them again)")
    for what, error in failed:
        err.print(f"  {one_line(what)}: {one_line(error)}", markup=False, highlight=False, soft_wrap=True)


def check_table(path: Path | None, option: str) -> None:
    """TspruneError unless `path` can be written as .parquet or .csv."""
    if path is not None and path.suffix not in (".parquet", ".csv"):
        raise TspruneError(f"{option} writes .parquet or .csv, not {path.name!r}")
    check_files(path)


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Writes a table as .parquet or .csv, whole or not at all."""
    from tsprune.atomic import write_whole

    content = io.BytesIO()
    frame.to_csv(content, index=False) if path.suffix == ".csv" else frame.to_parquet(content, index=False)
    write_whole(path, content.getvalue())


def check_pictures(path: Path | None, *, single: bool = True, folder: bool = True) -> None:
    """Raises TspruneError, before any work, if pictures cannot be written to `path`.

    single, folder : whether one picture (a file), and whether many (a folder) can be asked for
    """
    if path is None:
        return
    if find_spec("matplotlib") is None:
        raise TspruneError(f"--picture needs matplotlib; install it with: {install('picture')}")
    wanted = [" or ".join(f".{form}" for form in PICTURE_FORMS)] if single else []
    wanted += ["a folder"] if folder else []
    is_file = bool(path.suffix)
    if (is_file and not (single and path.suffix.removeprefix(".") in PICTURE_FORMS)) or not (
        is_file or folder
    ):
        raise TspruneError(f"cannot write pictures to {path}; name {' or '.join(wanted)} with --picture")
    if is_file:
        check_files(path)
    else:
        output_folder(path)
