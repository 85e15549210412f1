"""`tsprune anatomy`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from tsprune.anatomy import KINDS
from tsprune.cli.options import JsonOption, ModelArgument, open_model
from tsprune.cli.output import out, print_json
from tsprune.errors import printable


def anatomy_command(
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
    table = Table(title=Text(printable(f"{model} ({loaded.family})")), title_justify="left")
    for column in ("stack", "layers", "attention", "heads per sublayer", "head dim", "components"):
        table.add_column(column)
    for stack in loaded.anatomy.stacks:
        sites = [site for block in stack.blocks for site in block.attention]
        kinds = dict.fromkeys(site.role for site in sites)
        table.add_row(
            stack.name,
            str(len(stack.blocks)),
            ", ".join(kinds),
            ", ".join(_range([site.heads for site in sites if site.role == kind]) for kind in kinds),
            _range([site.head_dim for site in sites]),
            str(sum(c.stack == stack.name for c in components)),
        )
    out.print(table)
    if loaded.anatomy.removed:
        out.print(f"Pruned: {len(loaded.anatomy.removed)} components of the original are gone.")
    last = loaded.anatomy.stacks[-1].name
    examples = {c.kind: c.address for c in reversed(components) if c.stack == last}
    out.print(
        f"Addresses: {', '.join(examples[kind] for kind in KINDS if kind in examples)}; "
        f"patterns: '{last}.*.mlp'",
        highlight=False,
    )


def _range(numbers: list[int]) -> str:
    """One number if all are equal, else the smallest and the largest."""
    if not numbers:
        return "-"
    least, most = min(numbers), max(numbers)
    return str(least) if least == most else f"{least}-{most}"
