"""The findings: the study of the bundled checkpoints in docs/study, and the checkpoints' own cards."""

from __future__ import annotations

import json
import re

import pandas as pd
import readme

CARDS = readme.ROOT / "src" / "tsprune" / "models" / "bundled"
_INTRODUCTION = """\
# Findings

This page is made from `docs/study`, the results of `make study`, and the cards of the bundled
checkpoints. Changes are relative to the unablated model, with 95 % intervals
([Statistics](concepts/statistics.md)). The claims are those of ["Universal Redundancies in Time
Series Foundation Models"](https://arxiv.org/abs/2602.01605), tried on small checkpoints: a verdict
is about these, not about the released ones.

For another checkpoint, `tsprune study amazon/chronos-bolt-small --out study` writes the same as a
report.
"""


def page() -> str:
    """The whole page."""
    table, manifest = pd.read_parquet(readme.RESULTS), json.loads(readme.MANIFEST.read_text())
    parts = [_INTRODUCTION, "## In short", readme.account(table, manifest)]
    for model in manifest["arguments"]["models"]:
        rows = table[table["model"] == model]
        parts += [
            f"## {model}",
            "### Claims",
            claims(rows),
            "### Layers",
            "Mean change of MASE without one layer, without its heads, and without its MLP.",
            layers(rows),
            "### Heads that must stay",
            "For a loss of at most 1 % MASE, heads of one sublayer ablated in order of stable rank. "
            "*Test*: order and number are chosen on the windows they are scored on, as in the paper. "
            "*Calibration*: on other series.",
            heads_at(rows),
        ]
    parts += ["## All models together", claims(table[table["model"] == "all"])]
    parts += [
        "## Bundled checkpoints",
        "MASE and CRPS relative to Seasonal Naive; below 1 is better.",
        cards(),
    ]
    return "\n\n".join(parts) + "\n"


def claims(rows: pd.DataFrame) -> str:
    """Statement, verdict and evidence of each claim."""
    found = rows[rows["experiment"] == "claims"]
    lines = ["| claim | verdict | evidence |", "|---|---|---|"]
    for row in found.itertuples():
        lines.append(f"| {row.statement} | **{row.verdict}** | {row.evidence} |")
    return "\n".join(lines)


def layers(rows: pd.DataFrame) -> str:
    """A row a layer."""
    found = rows[rows["experiment"] == "layers"]
    units = {"both": "layer", "heads": "heads only", "mlp": "MLP only"}
    lines = [f"| block | {' | '.join(units.values())} |", f"|---|{'---:|' * len(units)}"]
    for (stack, layer), part in found.groupby(["stack", "layer"], sort=False):
        by_unit = part.set_index("unit")
        cells = [_change(by_unit.loc[unit]) if unit in by_unit.index else "" for unit in units]
        lines.append(f"| `{stack}.{layer:.0f}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def heads_at(rows: pd.DataFrame) -> str:
    """A row a sublayer."""
    found = rows[rows["experiment"] == "heads_at"]
    lines = ["| sublayer | heads | must stay (test) | must stay (calibration) | loss on the other series |"]
    lines.append("|---|---:|---:|---:|---:|")
    for (stack, layer, role), part in found.groupby(["stack", "layer", "attention"], sort=False):
        test, chosen = (part[part["selection"] == name].iloc[0] for name in ("test", "calibration"))
        change = readme.change(*chosen[["score_change", "score_low", "score_high"]])
        counts = f"{test['heads']:.0f} | {test['heads_at']:.0f} | {chosen['heads_at']:.0f}"
        lines.append(f"| `{stack}.{layer:.0f}.{role}` | {counts} | {change} |")
    return "\n".join(lines)


def cards() -> str:
    """A row a bundled checkpoint and suite, from the model cards."""
    lines = ["| checkpoint | parameters | suite | MASE | CRPS |", "|---|---:|---|---:|---:|"]
    for path in sorted(CARDS.glob("*/README.md")):
        card = path.read_text(encoding="utf-8")
        name, size = re.search(r"^# (.*)$", card, re.M), re.search(r"([\d,]+) parameters", card)
        for suite, mase, crps in re.findall(r"^\| (\w.*?) \| \d+ \| ([\d.]+) \| ([\d.]+) \|$", card, re.M):
            lines.append(f"| `{name and name[1]}` | {size and size[1]} | {suite} | {mase} | {crps} |")
    return "\n".join(lines)


def _change(row: pd.Series) -> str:
    return readme.change(*row[["mase_change", "mase_low", "mase_high"]])
