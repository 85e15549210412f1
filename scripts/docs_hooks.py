"""mkdocs' events: generated pages, notebooks as pages, pictures that follow the theme, nothing fetched."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pages import commands, findings, messages, models, notebooks

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
PAGES: dict[str, Callable[[], str]] = {
    "findings.md": findings.page,
    "reference/commands.md": commands.page,
    "reference/messages.md": messages.page,
    "reference/models.md": models.page,
    **{f"tutorials/{path.stem}.md": lambda path=path: notebooks.page(path) for path in notebooks.NOTEBOOKS},
}
FETCHED = re.compile(
    r'<(?:script|img|iframe|source)[^>]* src="(?:https?:)?//[^"]*"|<link[^>]* href="(?:https?:)?//[^"]*"'
)
SCRIPTS = {"assets/plotly.min.js": notebooks.plotly_script}


@event_priority(100)  # before plugins look at the files
def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Adds the pages and scripts that are generated."""
    for place, make in {**PAGES, **SCRIPTS}.items():
        files.append(File.generated(config, place, content=make()))
    return files


def on_page_content(html: str, **_: Any) -> str:
    """Puts pictures into the page, in the colours of the theme; empty headings become plain cells."""
    html = re.sub(r"<th[^>]*></th>", "<td></td>", html)
    return re.sub(r'<img alt="([^"]*)" src="[^"]*pictures/([\w-]+\.svg)"\s*/?>', _inline, html)


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """Refuses a page that would fetch a script, style sheet, font or picture from elsewhere."""
    if found := FETCHED.search(output):
        raise PluginError(f"{page.file.src_uri} fetches {found[0]}")
    return output


def _inline(found: re.Match[str]) -> str:
    svg = (PICTURES / found[2]).read_text(encoding="utf-8")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{found[1]}" ', 1)
