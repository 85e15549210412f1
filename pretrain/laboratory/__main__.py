"""`python -m pretrain.laboratory run|status|separate|results`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from pretrain.laboratory import findings, results, separation
from pretrain.laboratory.plan import plan
from pretrain.laboratory.running import carry_out, chosen, state_of
from pretrain.laboratory.windows import every_window
from tsprune.cost.allocator import keep_freed_memory
from tsprune.data.laboratory import LABORATORY_FILE
from tsprune.errors import TspruneError

app = typer.Typer(help="Small models trained alike but for one thing.", add_completion=False)

RunsArgument = Annotated[list[str] | None, typer.Argument(help="Names or patterns of runs; all by default.")]
ResultsOption = Annotated[Path, typer.Option("--results", help="Folder of the results.")]


@app.command()
def run(
    out: Annotated[Path, typer.Option(help="Where runs are trained; a stopped one goes on from there.")],
    runs: RunsArgument = None,
    folder: ResultsOption = results.FOLDER,
) -> None:
    """Train and measure what is not finished yet, in the order of the plan."""
    carry_out(chosen(plan(), runs or []), out, folder=folder, say=_say)


def _say(line: str) -> None:
    print(time.strftime("%H:%M:%S"), line, flush=True)


@app.command()
def status(
    runs: RunsArgument = None,
    out: Annotated[Path | None, typer.Option(help="Where runs are trained.")] = None,
    folder: ResultsOption = results.FOLDER,
) -> None:
    """Print the plan, and how far each run is."""
    for one in chosen(plan(), runs or []):
        c = one.condition
        size = f"{c.layers} layers, width {c.width}, {c.steps:,} steps"
        print(f"{one.name:18} {c.question:13} {c.architecture:13} {size:36} {c.differs:44}", end=" ")
        print(state_of(one, out, folder))


@app.command()
def separate(
    out: Annotated[Path, typer.Option(help="Where the runs were trained.")],
    runs: Annotated[list[str], typer.Argument(help="Names or patterns of finished runs.")],
    folder: ResultsOption = results.FOLDER,
) -> None:
    """Remove the heads that carry parroting, train what is left, measure accuracy and parroting."""
    windows = every_window()
    for one in chosen(plan(), runs):
        results.require_measured(one, out / one.name, folder)
        rows = separation.separate(
            one, out / one.name, results.measured(folder / f"{one.name}.csv"), windows, _say
        )
        _say(f"{one.name}: written to {results.write_separation(one, rows, folder)}")


@app.command("results")
def results_command(
    folder: ResultsOption = results.FOLDER,
    table: Annotated[
        Path, typer.Option(help="Parquet file of all measurements; the package's by default.")
    ] = LABORATORY_FILE,
    pages: Annotated[
        Path, typer.Option(help="Folder of the pages on the three questions.")
    ] = findings.FOLDER,
) -> None:
    """Gather finished runs in one table, print a line a run, rebuild numbers and figures from it."""
    rows = results.publish(table, folder)
    print(results.summary(rows).to_string(float_format="{:.3f}".format))
    print(f"{len(rows):,} measurements of {rows['run'].nunique()} runs: {table}")
    for path in findings.write(rows, pages):
        print(path)


def main() -> None:
    """The command line; what the user can mend is one line and exit code 2."""
    try:
        app(standalone_mode=True)
    except TspruneError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    keep_freed_memory()
    main()
