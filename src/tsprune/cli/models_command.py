"""`tsprune models`."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from tsprune.cli.options import JsonOption
from tsprune.cli.output import out, print_json


def models_command(as_json: JsonOption = False) -> None:
    """List model families, whether their package is installed, and the bundled checkpoints."""
    from tsprune.models import FAMILIES, bundled_names

    if as_json:
        families = [{"family": f.name, "extra": f.extra, "installed": f.installed} for f in FAMILIES.values()]
        print_json({"families": families, "bundled": [f"bundled:{name}" for name in bundled_names()]})
        return
    table = Table("family", "installed", "to install")
    for family in FAMILIES.values():
        table.add_row(
            family.name, "yes" if family.installed else "no", escape(f'pip install "{family.requirement}"')
        )
    out.print(table)
    out.print("Bundled: " + ", ".join(f"bundled:{name}" for name in bundled_names()), highlight=False)
