"""`tsprune anatomy`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tsprune.anatomy import KINDS
from tsprune.cli.options import ModelArgument, Shared, with_shared
from tsprune.cli.output import print_rows, say

if TYPE_CHECKING:
    from tsprune.anatomy import Component
    from tsprune.models.forecaster import Forecaster


@with_shared("as_json")
def anatomy_command(
    model: ModelArgument,
    pattern: Annotated[
        str | None,
        typer.Argument(metavar="[PATTERN]", help="Only addresses like this, e.g. 'decoder.*.mlp'."),
    ] = None,
    *,
    shared: Shared,
) -> None:
    """List the components of a model: layers, attention sublayers, heads and MLPs by address."""
    shared.check(model)
    loaded = shared.load(model, device="cpu")
    components = loaded.anatomy.components() if pattern is None else loaded.anatomy.select(pattern)

    def tables() -> None:
        if pattern is None:
            _print_stacks(model, loaded, components)
        else:
            for component in components:
                say(component.address)

    rows = [{"address": component.address, "kind": component.kind} for component in components]
    shared.report("anatomy", {"family": loaded.family, "components": rows}, tables)


def _print_stacks(name: str, model: Forecaster, components: tuple[Component, ...]) -> None:
    rows = []
    for stack in model.anatomy.stacks:
        sites = [site for block in stack.blocks for site in block.attention]
        roles = dict.fromkeys(site.role for site in sites)
        heads = [_range([site.heads for site in sites if site.role == role]) for role in roles]
        rows.append(
            {
                "stack": stack.name,
                "layers": len(stack.blocks),
                "attention": ", ".join(roles),
                "heads_per_sublayer": ", ".join(heads),
                "head_dim": _range([site.head_dim for site in sites]),
                "components": sum(c.stack == stack.name for c in components),
            }
        )
    print_rows(rows, f"{name} ({model.family})")
    if model.anatomy.removed:
        say(f"Pruned: {len(model.anatomy.removed)} components of the original are removed.")
    last = model.anatomy.stacks[-1].name
    examples = {c.kind: c.address for c in reversed(components) if c.stack == last}
    shown = ", ".join(examples[kind] for kind in KINDS if kind in examples)
    say(f"Addresses: {shown}; patterns: '{last}.*.mlp'")


def _range(numbers: list[int]) -> str:
    """One number if all are equal, else the smallest and the largest."""
    least, most = min(numbers, default=0), max(numbers, default=0)
    return str(least) if least == most else f"{least}-{most}"
