"""The command line: every command is a thin call into the API, one file each."""

from __future__ import annotations

import sys

import typer

from tsprune.cli.anatomy_command import anatomy
from tsprune.cli.evaluate_command import evaluate
from tsprune.cli.execution import run
from tsprune.cli.explain_command import explain
from tsprune.cli.heads_at_command import heads_at
from tsprune.cli.latency_command import latency
from tsprune.cli.models_command import models
from tsprune.cli.prune_command import prune
from tsprune.cli.rank_command import rank
from tsprune.cli.recover_command import recover
from tsprune.cli.results_command import results
from tsprune.cli.study_command import study
from tsprune.cli.sweep_command import sweep
from tsprune.cli.verify_command import verify
from tsprune.cost.allocator import keep_freed_memory

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Find, explain and remove redundancy in pretrained time series foundation models.",
)
# the order of --help
for command in (
    study,
    evaluate,
    anatomy,
    rank,
    sweep,
    results,
    explain,
    heads_at,
    prune,
    recover,
    latency,
    verify,
    models,
):
    app.command()(command)


def main() -> None:
    """Entry point: a user's mistake is one line on stderr and exit code 2; see `tsprune.cli.execution`."""
    keep_freed_memory()
    if code := run(app):
        sys.exit(code)
