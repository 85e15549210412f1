"""Every message of a mistake in the source, by the part of the package that it is raised in."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src" / "tsprune"
# the first folder or module below src/tsprune -> heading
_PARTS = {
    "data": "Data",
    "models": "Models and checkpoints",
    "anatomy": "Components and patterns",
    "cli": "Command line",
    "pruning": "Pruning and recovery",
    "deployment": "Deployment",
    "sweeps": "Sweeps and stores",
    "scores": "Scores",
}
_PYTHONS = ("ValueError", "TypeError", "AssertionError", "AttributeError", "KeyError", "NotImplementedError")


def page() -> str:
    """A list of the messages; places where a message has a name or a number are shown as …"""
    groups: dict[str, set[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        part = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        groups.setdefault(_PARTS.get(part, "Everything else"), set()).update(raised(path))
    parts = [
        "# All messages",
        "Every mistake is one line on stderr with exit code 2, or a `TspruneError` in Python. The list "
        "is made from the source; … stands for names and numbers. "
        "[Errors](../errors.md) explains those met most.",
    ]
    for title in [*_PARTS.values(), "Everything else"]:
        if found := groups.get(title):
            parts += [f"## {title}", "\n".join(f"- `{one}`" for one in sorted(found, key=str.lower))]
    return "\n\n".join(parts) + "\n"


def raised(path: Path) -> Iterator[str]:
    """The messages that a module raises, … for what is filled in; those without any words are left out."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and _is_mistake(_name(node.func)) and node.args:
            text = template(node.args[0])
            if any(part.strip(" :;,.") for part in text.split("…")) and not text.isdecimal():
                yield re.sub("…+", "…", " ".join(text.replace("`", "'").split()))


def template(node: ast.expr) -> str:
    """The text of a string expression, with … for values."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return template(node.left) + template(node.right)
    return "…"


def _is_mistake(name: str) -> bool:
    return (name.endswith("Error") and name not in _PYTHONS) or name == "BadParameter"


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
