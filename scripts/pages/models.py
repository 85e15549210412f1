"""The table of models, from the declarations of the families, which tests hold against the models."""

from __future__ import annotations

from tsprune.cli.models_command import checkpoint_rows, family_rows

_MARKS = {
    "multivariate": "variates",
    "past_covariates": "covariates",
    "export": "ONNX",
}
_INTRODUCTION = """\
# Models

The tables are those of `tsprune models`. The conformance laws run for every family, on a tiny and,
where there is one, on the bundled checkpoint: forecasts equal upstream's, ablation is exact, replay
changes no bit, pruned models equal ablated ones and can be saved, loaded, explained and recovered.
The ticks are for what only some families do: forecast several *variates* together, read past
*covariates*, and export to *ONNX*. A test compares each tick with the model, and others run what it
promises.
"""


_BUNDLED = """\
Bundled checkpoints are small, in the upstream class and format, and trained from scratch on
synthetic series, by the recipe in `pretrain` (`python -m pretrain timesfm --out runs/timesfm`).
[Findings](../findings.md) has their scores, and `src/tsprune/models/bundled` their model cards.
"""


def page() -> str:
    """Families with what they support, and their published checkpoints."""
    parts = [_INTRODUCTION, "## Families", families(), "## Bundled checkpoints", _BUNDLED, bundled()]
    parts += ["## Published checkpoints"]
    parts += [
        "Any other checkpoint of these architectures loads by its hub id, or from a folder.",
        checkpoints(),
    ]
    return "\n\n".join(parts) + "\n"


def families() -> str:
    """A row a family."""
    head = ["family", "architecture", "attention", "forecasts", *_MARKS.values(), "extra"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in family_rows():
        cells = [str(row["title"]), str(row["architecture"]), ", ".join(map(str, _list(row["attention"])))]
        cells += [str(row["forecasts"]), *("✓" if row[mark] else "no" for mark in _MARKS)]
        cells += [f"`{row['extra']}`"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def bundled() -> str:
    """A line a family that has some."""
    lines = []
    for row in family_rows():
        if names := [f"`{name}`" for name in _list(row["bundled"])]:
            lines.append(f"- {row['title']}: {', '.join(names)}")
    return "\n".join(lines)


def checkpoints() -> str:
    """A row a published checkpoint."""
    titles = {row["family"]: row["title"] for row in family_rows()}
    lines = ["| checkpoint | family | parameters | licence of the weights |", "|---|---|---:|---|"]
    for row in checkpoint_rows():
        lines.append(f"| `{row['model']}` | {titles[row['family']]} | {row['size']} | {row['licence']} |")
    return "\n".join(lines)


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, list) else []
