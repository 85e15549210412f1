"""The command line: every command is a thin call into the API, one file each."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated

import typer

import tsprune
from tsprune.cli.execution import run_command
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
for _name in (
    "study", "evaluate", "forecast", "anatomy", "rank", "sweep", "results", "explain", "explore", "heads_at",
    "prune", "recover", "export", "serve", "frontier", "check", "latency", "verify", "models",
):  # fmt: skip
    _module = import_module(f"tsprune.cli.{_name}_command")
    app.command(_name.replace("_", "-"))(getattr(_module, f"{_name}_command"))


def main() -> None:
    """Entry point: a user's mistake is one line on stderr and exit code 2; see `tsprune.cli.execution`."""
    keep_freed_memory()
    if code := run_command(app):
        sys.exit(code)
