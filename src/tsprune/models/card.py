"""The model card of a pruned, perhaps recovered checkpoint."""

from __future__ import annotations

from collections import Counter

from tsprune.models.forecaster import Evidence, Forecaster, Measured, Origin
from tsprune.text import code, markdown


def model_card(
    model: Forecaster, origin: Origin, *, upstream_reads_it: bool, evidence: Evidence | None
) -> str:
    """README.md: removed components, their cost, how to load the model, and its licence.

    evidence : name -> before, after and change, as the caller measured them
    """
    share = 1 - model.parameter_count / origin.parameters
    lines = [
        f"# {markdown(origin.name)}, pruned" + (" and recovered" if origin.recovery else ""),
        "",
        f"A {model.family} checkpoint with {share:.1%} of its parameters removed by tsprune: "
        f"{origin.parameters:,} before, {model.parameter_count:,} after.",
        "",
        f"Made from {code(origin.name)}"
        + (f" (SHA-256 of its weights {markdown(origin.sha256)})." if origin.sha256 else "."),
        "",
        "## What was removed",
        "",
        *(f"- {count} {kind}: {addresses}" for kind, count, addresses in _removed(origin)),
        *_provenance(origin),
        *_recovery(origin),
        "",
        "## What it costs and gains",
        "",
        *_table(evidence),
        "",
        "## Loading it",
        "",
        "```python",
        "import tsprune",
        "",
        'model = tsprune.load("path/to/this/folder")',
        'pipeline = tsprune.load_pipeline("path/to/this/folder")  # the upstream object',
        "```",
        "",
        "The upstream package alone reads it too."
        if upstream_reads_it
        else "The upstream package alone does not read it: its layers are of unlike sizes.",
        "",
        "## Licence",
        "",
        model.licence_note,
    ]
    return "\n".join(lines) + "\n"


def _removed(origin: Origin) -> list[tuple[str, int, str]]:
    names = {"layer": "layers", "attention": "attention sublayers", "mlp": "MLPs", "head": "attention heads"}
    counts = Counter(component.kind for component in origin.components)
    return [
        (names[kind], count, ", ".join(f"`{c}`" for c in origin.components if c.kind == kind))
        for kind in names
        if (count := counts[kind])  # type: ignore[index]
    ]


def _provenance(origin: Origin) -> list[str]:
    if not origin.provenance:
        return []
    # the way to a plan, step by step, is in tsprune.json
    said = {key: value for key, value in origin.provenance.items() if not isinstance(value, list)}
    return ["", "Chosen by:", "", *(f"- {markdown(key)}: {markdown(value)}" for key, value in said.items())]


def _recovery(origin: Origin) -> list[str]:
    how = origin.recovery
    if how is None:
        return []
    later = len(origin.components) - how.components
    return [
        "",
        "## Recovered",
        "",
        f"Trained after the removal to forecast as {code(how.teacher)} does: {how.steps:,} steps, "
        f"{how.histories:,} synthetic histories (`tsprune recover`). The weights are those of step "
        f"{how.best_step:,}, the best on calibration series of {markdown(how.suite)} "
        f"({how.windows} windows): "
        f"{markdown(how.metric)} relative to Seasonal Naive {how.score_before:.4g} before, "
        f"{how.score_after:.4g} after." + (f" The last {later} components went later." if later else ""),
    ]


def _table(evidence: Evidence | None) -> list[str]:
    if not evidence:
        return ["Not measured. Measure before you rely on it."]
    measured = ((name, Measured(*row)) for name, row in evidence.items())
    rows = [
        f"| {markdown(name)} | {row.before:.4g} | {row.after:.4g} | {markdown(row.change, begins=False)} |"
        for name, row in measured
    ]
    return ["| | before | after | change |", "|---|---:|---:|---:|", *rows]
