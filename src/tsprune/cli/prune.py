"""`tsprune prune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tsprune.cli.options import JsonOption, ModelArgument, open_model
from tsprune.cli.output import out, print_json
from tsprune.errors import TspruneError


def prune(
    model: ModelArgument,
    output: Annotated[Path, typer.Option("--out", help="New folder for the smaller checkpoint.")],
    remove: Annotated[
        list[str] | None,
        typer.Option(help="Address or pattern of what to remove, e.g. 'decoder.*.cross.head.2'; repeatable."),
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(help="File with a plan (JSON, see tsprune.Plan) in place of --remove.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Remove components for good: a smaller checkpoint that tsprune.load and load_pipeline read."""
    from tsprune.atomic import check_free
    from tsprune.pruning import Plan
    from tsprune.pruning import prune as run_prune

    if (plan is None) == (not remove):
        raise TspruneError("say what to remove: either --remove PATTERN (repeatable) or --plan FILE")
    check_free(output)
    chosen = Plan.load(plan) if plan is not None else None
    loaded = open_model(model, "cpu")
    pruned = run_prune(loaded, chosen or remove or [])
    pruned.save(output)
    before, after = loaded.parameter_count, pruned.parameter_count
    assert pruned.origin is not None
    gone = [component.address for component in pruned.origin.components]
    if as_json:
        print_json({"out": str(output), "removed": gone, "parameters": {"before": before, "after": after}})
        return
    out.print(
        f"{model}: {before:,} parameters, {after:,} after removing {len(gone)} components "
        f"({1 - after / before:.1%} fewer). Written to {output}; its README.md is the model card.",
        highlight=False,
        soft_wrap=True,
    )
