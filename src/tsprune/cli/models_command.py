"""`tsprune models`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from tsprune.cli.options import Shared, with_shared
from tsprune.cli.output import print_rows, say

if TYPE_CHECKING:
    from tsprune.models import Family


@with_shared("as_json")
def models_command(*, shared: Shared) -> None:
    """List model families, what each supports and how to install it, and the checkpoints to load."""
    rows = family_rows()
    bundled = sorted(name for row in rows for name in row["bundled"])  # type: ignore[attr-defined]

    def tables() -> None:
        print_rows([_shown(row) for row in rows], "families")
        checkpoints = [
            {name: row[name] for name in ("model", "size", "licence")} for row in checkpoint_rows()
        ]
        print_rows(checkpoints, "published checkpoints: any hub id of these families loads")
        say(f"Bundled: {', '.join(bundled)}")
        for row in rows:
            if not row["installed"]:
                say(f"{row['family']} is not installed: {row['install']}")

    shared.report("models", {"families": rows, "bundled": bundled}, tables)


def family_rows() -> list[dict[str, object]]:
    """A row a family: how it is built, what it supports, its checkpoints, how to install it."""
    from tsprune.models import FAMILIES

    bundled = _bundled()
    return [_row(family, bundled.get(family.name, [])) for family in FAMILIES.values()]


def checkpoint_rows() -> list[dict[str, object]]:
    """A row a published checkpoint: family, hub id, size, licence of the weights."""
    from tsprune.models import FAMILIES

    return [
        {"family": family.name, "model": one.id, "size": one.size, "licence": one.licence}
        for family in FAMILIES.values()
        for one in family.released
    ]


def _row(family: Family, bundled: list[str]) -> dict[str, object]:
    return {
        "family": family.name,
        "title": family.title,
        "architecture": family.architecture,
        "attention": list(family.attention),
        "forecasts": "paths" if family.samples else "quantiles",
        "multivariate": family.multivariate,
        "past_covariates": family.past_covariates,
        "export": bool(family.graph),
        "released": [dataclasses.asdict(one) for one in family.released],
        "bundled": bundled,
        "installed": family.installed,
        "extra": family.extra,
        "install": family.install,
    }


def _bundled() -> dict[str, list[str]]:
    """The bundled checkpoints by family, told from their headers."""
    from tsprune.models import FAMILIES, bundled_names
    from tsprune.models.checkpoints import find

    found: dict[str, list[str]] = {}
    for name in bundled_names():
        checkpoint = find(f"bundled:{name}")
        family = next(family for family in FAMILIES.values() if family.matches(checkpoint))
        found.setdefault(family.name, []).append(checkpoint.name)
    return found


def _shown(row: dict[str, object]) -> dict[str, object]:
    """The columns of the terminal's table."""
    kept = ("family", "architecture", "attention", "forecasts", "multivariate", "past_covariates", "export")
    cells = {name: row[name] for name in (*kept, "installed")}
    return {name: _cell(value) for name, value in cells.items()}


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, list) else value
