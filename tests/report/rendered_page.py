"""A rendered page as a browser sees it."""

from __future__ import annotations

import base64
import json
from html.parser import HTMLParser

import numpy as np

MARKUP = "<script>alert(1)</script>"


class Page(HTMLParser):
    """What a browser would see: elements, texts, scripts, tables by title."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[tuple[str | None, str]] = []
        self.styles: list[str] = []
        self._stack: list[str] = []
        self._script_type: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._stack.append(tag)
        self._script_type = dict(attrs).get("type")

    def handle_endtag(self, tag: str) -> None:
        while self._stack and self._stack.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        inside = self._stack[-1] if self._stack else ""
        if inside == "script":
            self.scripts.append((self._script_type, data))
        elif inside == "style":
            self.styles.append(data)
        else:
            self.text.append(data)

    def figures(self) -> list[dict]:
        return [json.loads(text) for kind, text in self.scripts if kind == "application/json"]


def values(figure: dict) -> list[float]:
    """All y values of a figure's traces, arrays decoded."""
    found: list[float] = []
    for trace in figure["data"]:
        y = trace.get("y", [])
        if isinstance(y, dict):
            y = np.frombuffer(base64.b64decode(y["bdata"]), dtype=y["dtype"])
        found += [float("nan") if v is None else float(v) for v in y]
    return found
