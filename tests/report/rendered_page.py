"""A rendered page as a browser sees it."""

from __future__ import annotations

import base64
import gzip
import json
import re
from html.parser import HTMLParser

import numpy as np

MARKUP = "<script>alert(1)</script>"


INLINE = {"a", "b", "code", "span"}
VOID = {"meta", "link", "br", "img", "input"}


def unpacked(text: str) -> str:
    """A part of a page that is compressed."""
    return gzip.decompress(base64.b64decode(text)).decode("utf-8")


def with_long_tables(html: str) -> str:
    """A page with its compressed tables in place, as after they were unfolded."""
    return re.sub(
        r'<script type="text/html\+gzip">(.*?)</script>', lambda found: unpacked(found[1]), html, flags=re.S
    )


class Page(HTMLParser):
    """What a browser would see: elements, texts, scripts, tables by title."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[tuple[str | None, str]] = []
        self.styles: list[str] = []
        self.inside: dict[str, set[str]] = {}
        self._read: list[str] = []
        self._unfolded: list[str] = []
        self._stack: list[str] = []
        self._script_type: str | None = None
        self.feed(with_long_tables(text))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._stack.append(tag)
        self.inside.setdefault(tag, set()).update({"details"} & set(self._stack) or {"none"})
        self._read.append("" if tag in INLINE else " ")
        self._unfolded.append(self._read[-1])
        self._script_type = dict(attrs).get("type")

    def handle_endtag(self, tag: str) -> None:
        self._read.append("" if tag in INLINE else " ")
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
            self._read.append(data)
            if "details" not in self._stack:
                self._unfolded.append(data)

    @property
    def read(self) -> str:
        """All text as it is read: with single spaces, and elements in a line without spaces around them."""
        return " ".join("".join(self._read).split())

    @property
    def unfolded(self) -> str:
        """The same, without what is folded."""
        return " ".join("".join(self._unfolded).split())

    def figures(self) -> list[dict]:
        """The figures in order."""
        return [json.loads(unpacked(text)) for kind, text in self.scripts if kind == "application/json+gzip"]


def values(figure: dict) -> list[float]:
    """All y values of a figure's traces, arrays decoded."""
    found: list[float] = []
    for trace in figure["data"]:
        y = trace.get("y", [])
        if isinstance(y, dict):
            y = np.frombuffer(base64.b64decode(y["bdata"]), dtype=y["dtype"])
        found += [float("nan") if v is None else float(v) for v in y]
    return found
