"""`tsprune anatomy`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from tsprune.cli.options import JsonOption, ModelArgument, open_model
from tsprune.cli.output import out, print_json


def anatomy(
    model: ModelArgument,
    pattern: Annotated[
        str | None,
        typer.Argument(metavar="[PATTERN]", help="Only addresses like this, e.g. 'decoder.*.mlp'."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the components of a model: layers, attention sublayers, heads and MLPs by address."""
    loaded = open_model(model, "cpu")
    components = loaded.anatomy.components() if pattern is None else loaded.anatomy.select(pattern)
    if as_json:
        print_json([{"address": c.address, "kind": c.kind} for c in components])
        return
    if pattern is not None:
        for component in components:
            typer.echo(component.address)
        return
    table = Table(title=f"{model} ({loaded.family})", title_justify="left")
    for column in ("stack", "layers", "attention", "heads per sublayer", "head dim", "components"):
        table.add_column(column)
    for stack in loaded.anatomy.stacks:
        sites = stack.blocks[0].attention
        table.add_row(
            stack.name,
            str(len(stack.blocks)),
            ", ".join(site.kind for site in sites),
            ", ".join(str(site.heads) for site in sites),
            str(sites[0].head_dim),
            str(sum(c.stack == stack.name for c in components)),
        )
    out.print(table)
    first = loaded.anatomy.stacks[-1]
    out.print(
        f"Addresses: {first.name}.0 (layer), {first.name}.0.{first.blocks[0].attention[0].kind}, "
        f"{first.name}.0.{first.blocks[0].attention[0].kind}.head.0, {first.name}.0.mlp; "
        f"patterns: '{first.name}.*.mlp'",
        highlight=False,
    )
