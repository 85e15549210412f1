"""The command line: every command is a thin call into the API, one file each."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import tsprune
from tsprune.cli.anatomy_command import anatomy_command
from tsprune.cli.evaluate_command import evaluate_command
from tsprune.cli.execution import run_command
from tsprune.cli.explain_command import explain_command
from tsprune.cli.heads_at_command import heads_at_command
from tsprune.cli.latency_command import latency_command
from tsprune.cli.models_command import models_command
from tsprune.cli.prune_command import prune_command
from tsprune.cli.rank_command import rank_command
from tsprune.cli.recover_command import recover_command
from tsprune.cli.results_command import results_command
from tsprune.cli.study_command import study_command
from tsprune.cli.sweep_command import sweep_command
from tsprune.cli.verify_command import verify_command
from tsprune.cost.allocator import keep_freed_memory

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode="rich")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tsprune {tsprune.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Find, explain and remove redundancy in pretrained time series foundation models."""


# the order of --help
for command in (
    study_command,
    evaluate_command,
    anatomy_command,
    rank_command,
    sweep_command,
    results_command,
    explain_command,
    heads_at_command,
    prune_command,
    recover_command,
    latency_command,
    verify_command,
    models_command,
):
    app.command(command.__name__.removesuffix("_command").replace("_", "-"))(command)


def main() -> None:
    """Entry point: a user's mistake is one line on stderr and exit code 2; see `tsprune.cli.execution`."""
    keep_freed_memory()
    if code := run_command(app):
        sys.exit(code)
