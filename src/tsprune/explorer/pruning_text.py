"""The plan that removes what is off, and the command and the Python that apply it."""

from __future__ import annotations

import shlex

from tsprune.anatomy import Component
from tsprune.explorer.session import Session
from tsprune.pruning import Plan

PLAN_FILE = "plan.json"
FOLDER = "smaller"


def plan_text(session: Session, components: tuple[Component, ...]) -> dict[str, str]:
    """`plan` (JSON, for a file `plan.json`), `command` and `python`.

    Pruning removes components, so forecasts of the pruned model are those of zero ablation.
    """
    plan = Plan.of(session.model, components, chosen="by hand in tsprune explore")
    addresses = ",\n".join(f'    "{component.address}"' for component in plan.components)
    name = session.model.name
    return {
        "plan": plan.to_json() + "\n",
        "command": f"tsprune prune {shlex.quote(name)} --plan {PLAN_FILE} --out {FOLDER}",
        "python": (
            "import tsprune\n\n"
            f"model = tsprune.load({name!r})\n"
            f"plan = tsprune.Plan.of(model, [\n{addresses},\n])\n"
            "smaller = tsprune.prune(model, plan)\n"
            f'smaller.save("{FOLDER}")\n'
        ),
    }
