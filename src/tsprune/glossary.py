"""The words of `tsprune` with their meanings: for the documentation, and for definitions on pages."""

from __future__ import annotations

import dataclasses
import functools
import html
import re
import tomllib
from collections.abc import Mapping
from importlib import resources


@dataclasses.dataclass(frozen=True)
class Term:
    """An entry of the glossary.

    key : part of its anchor on a page
    title, meaning : Markdown with bold and code only
    forms : what stands for it in a text, in lower case; empty if pages do not explain it
    """

    key: str
    title: str
    meaning: str
    forms: frozenset[str]

    @property
    def html(self) -> str:
        """The meaning as HTML."""
        return _as_html(self.meaning)

    @property
    def html_title(self) -> str:
        """The title as HTML."""
        return _as_html(self.title)


@functools.cache
def glossary() -> Mapping[str, Term]:
    """All terms by key, in the order of the documentation."""
    text = resources.files("tsprune").joinpath("glossary.toml").read_text(encoding="utf-8")
    return {key: _term(key, **entry) for key, entry in tomllib.loads(text).items()}


def _term(
    key: str,
    words: list[str],
    meaning: str,
    *,
    forms: tuple[str, ...] = (),
    joined: str = "",
    common: bool = False,
    only_forms: bool = False,
) -> Term:
    title = joined or ", ".join(f"**{word}**" for word in words)
    spelt = () if common else (*([] if only_forms else words), *forms)
    return Term(key, title, meaning, frozenset(form.lower() for form in spelt))


def _as_html(markdown: str) -> str:
    text = html.escape(markdown.replace("\\|", "|"), quote=False)
    text = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", text)
    return re.sub(r"`(.+?)`", r"<code>\1</code>", text)


@functools.cache
def _spellings() -> tuple[re.Pattern[str], Mapping[str, str]]:
    """A pattern of every form, the longest first, and form -> key."""
    keys = {form: term.key for term in glossary().values() for form in term.forms}
    longest = sorted(keys, key=len, reverse=True)
    return re.compile(rf"(?<![\w@./-])({'|'.join(map(re.escape, longest))})(?![\w@]|[./-]\w)", re.I), keys


def with_definitions(text: str, seen: set[str]) -> str:
    """`text` as HTML; the first occurrence of each term is a link to its definition.

    seen : keys of terms that need no link any more; those that get one are added

    The link is described by the definition, so a screen reader reads it; without a script it leads there.
    """
    pattern, keys = _spellings()

    def link(found: re.Match[str]) -> str:
        key = keys[found[0].lower()]
        if key in seen:
            return found[0]
        seen.add(key)
        return f'<a class="term" href="#term-{key}" aria-describedby="means-{key}">{found[0]}</a>'

    return pattern.sub(link, html.escape(text, quote=False))
