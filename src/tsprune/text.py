"""Text in messages: counted things, and text of users and of files from outside, literal in Markdown."""

from __future__ import annotations

import re

from tsprune.errors import one_line

LONGEST = 500  # characters
# an underscore inside a word is no markup, nor is a bracket that no link follows
_MARKDOWN = re.compile(r"([\\`*|~]|(?<!\w)_|_(?!\w)|\](?=[(\[:]))")
_BEGINS = re.compile(r"^([-+=#])")  # lists, headings and underlines of headings begin a line
_ADDRESS = re.compile(r"(?i)\b(https?|ftp|www)(?=[:.])")


def markdown(value: object, most: int = LONGEST, *, begins: bool = True) -> str:
    """`value` as one line of Markdown that shows it literally: no markup, HTML, link or table border.

    begins : whether it may stand where a line (or an item of a list) begins
    """
    text = one_line(value, most).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = _MARKDOWN.sub(r"\\\1", text)
    if begins:
        text = _BEGINS.sub(r"\\\1", text)
    return _ADDRESS.sub(r"\1&#8203;", text)


def code(value: object, most: int = LONGEST) -> str:
    """`value` as one line of Markdown code; as escaped text if it holds backticks or HTML."""
    text = one_line(value, most)
    return markdown(text, most) if not text or set(text) & set("`<>") else f"`{text}`"


def count(number: int, noun: str) -> str:
    """1, "model" -> "1 model"; 2, "model" -> "2 models"; 0, "model" -> "no models"."""
    return f"{number or 'no':{',' if number else ''}} {noun}{'' if number == 1 else 's'}"
