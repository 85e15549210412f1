"""The contents of a page: sections of figures and tables, with words from captions.toml."""

from __future__ import annotations

import dataclasses
import functools
import json
import tomllib
from collections.abc import Callable, Mapping
from importlib import resources
from types import MappingProxyType
from typing import Any

import jinja2
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from tsprune.report.tables import PageTable


@functools.cache
def _captions() -> dict[str, dict[str, str]]:
    return tomllib.loads(
        resources.files("tsprune.report").joinpath("captions.toml").read_text(encoding="utf-8")
    )


def words(figure: str, part: str = "text", **values: object) -> str:
    """The `part` ("heading", "text", "lead", ...) of the words of a figure, with its {names} filled in."""
    found = _captions()
    return " ".join(found[figure][part].format(**found["phrases"], **values).split())


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure with its caption.

    json : traces, and two layouts that the page chooses from by its width
    facts : sentences about the figure, above it
    """

    key: str
    heading: str
    caption: str
    json: Markup
    facts: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading with pictures and tables below it.

    lead : a paragraph below the heading
    shown : open tables before the pictures; `tables` are folded and follow the pictures
    """

    heading: str
    pictures: tuple[Picture, ...]
    tables: tuple[PageTable, ...] = ()
    lead: str = ""
    shown: tuple[PageTable, ...] = ()


def picture(
    key: str,
    draw: Callable[..., go.Figure],
    *of: object,
    number: str = "",
    facts: tuple[str, ...] = (),
    values: Mapping[str, object] = MappingProxyType({}),
    **how: Any,
) -> Picture:
    """The figure `draw(*of, **how, columns=...)` in two layouts; the traces are the same and stored once.

    key : of its words in captions.toml, with the `values` that these need
    number : distinguishes figures of one key
    """
    wide, narrow = (json.loads(draw(*of, **how, columns=columns).to_json()) for columns in (None, 1))
    parts = {"data": wide["data"], "wide": wide["layout"], "narrow": narrow["layout"]}
    text = json.dumps(parts, separators=(",", ":"), allow_nan=False)
    heading, caption = (words(key, part, **values) for part in ("heading", "text"))
    # inside a script element only "<" could end it (</script) or open a comment (<!--)
    return Picture(f"{key}{number}", heading, caption, Markup(text.replace("<", "\\u003c")), facts)


def page(template: str, **content: object) -> str:
    """A page of this package's templates as HTML, including its style and the plotting library."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tsprune", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css = resources.files("tsprune.report").joinpath("report.css").read_text(encoding="utf-8")
    return environment.get_template(template).render(
        css=Markup(css), plotly=Markup(get_plotlyjs()), **content
    )
