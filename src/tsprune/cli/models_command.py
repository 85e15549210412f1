"""`tsprune models`."""

from __future__ import annotations

from tsprune.cli.options import Shared, with_shared
from tsprune.cli.output import print_rows, say


@with_shared("as_json")
def models_command(*, shared: Shared) -> None:
    """List model families, whether their package is installed, and the bundled checkpoints."""
    from tsprune.models import FAMILIES, bundled_names

    bundled = [f"bundled:{name}" for name in bundled_names()]
    families = [
        {"family": f.name, "installed": f.installed, "extra": f.extra, "install": f.install}
        for f in FAMILIES.values()
    ]

    def tables() -> None:
        shown = [{**row, "installed": "yes" if row["installed"] else "no"} for row in families]
        print_rows(shown, "families")
        say(f"Bundled: {', '.join(bundled)}")

    shared.report("models", {"families": families, "bundled": bundled}, tables)
