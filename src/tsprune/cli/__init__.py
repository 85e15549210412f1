"""The command line: every command is a thin call into the API, one file each."""

from __future__ import annotations

import sys

import typer

from tsprune.cli.anatomy import anatomy
from tsprune.cli.evaluate import evaluate
from tsprune.cli.explain import explain
from tsprune.cli.heads_at import heads_at
from tsprune.cli.latency import latency
from tsprune.cli.models import models
from tsprune.cli.prune import prune
from tsprune.cli.rank import rank
from tsprune.cli.recover import recover
from tsprune.cli.results import results
from tsprune.cli.run import run
from tsprune.cli.study import study
from tsprune.cli.sweep import sweep
from tsprune.cli.verify import verify
from tsprune.evaluation.allocator import keep_freed_memory

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
    """Entry point: a user's mistake is one line on stderr and exit code 2; see `tsprune.cli.run`."""
    keep_freed_memory()
    if code := run(app):
        sys.exit(code)
