"""Docstrings of this package as Markdown: `name : meaning` lines become lists, examples become code."""

from __future__ import annotations

import re
from typing import Any

from griffe import Docstring, Extension, Object

_ENTRY = re.compile(r"([\w*.]+(?:, [\w*.]+)*) : (.*)")
_UNDERLINED = re.compile(r"^(\w[\w ]*)\n-{3,}$", re.M)


class Docstrings(Extension):
    """Rewrites every docstring when its object has been read."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring = Docstring(markdown(obj.docstring.value), lineno=obj.docstring.lineno, parent=obj)


def markdown(text: str) -> str:
    """The docstring in Markdown."""
    paragraphs = _UNDERLINED.sub(r"**\1**\n", text).split("\n\n")
    return "\n\n".join(map(_paragraph, paragraphs))


def _paragraph(text: str) -> str:
    if text.lstrip().startswith(">>>"):
        return f"```pycon\n{text}\n```"
    if _ENTRY.match(text):
        return "\n".join(map(_line, text.split("\n")))
    if text.startswith("    "):
        return text
    return "\n".join(f"    {line.strip()}" if _FORMULA.match(line) else line for line in text.split("\n"))


_FORMULA = re.compile(r"\s{4,}\S+ = ")


def _line(line: str) -> str:
    found = _ENTRY.match(line)
    return f"- `{found[1]}`: {found[2]}" if found else line
