"""What a page is made of: sections of pictures and tables."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from importlib import resources

import jinja2
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from tsprune.report.tables import Table


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure in the two layouts the page chooses from by its width, and its caption.

    facts : sentences about what is drawn, above it
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
    shown : tables that are open, before the pictures; `tables` are folded, after them
    """

    heading: str
    pictures: tuple[Picture, ...]
    tables: tuple[Table, ...] = ()
    lead: str = ""
    shown: tuple[Table, ...] = ()


def picture(
    key: str,
    heading: str,
    caption: str,
    draw: Callable[[int | None], go.Figure],
    facts: tuple[str, ...] = (),
) -> Picture:
    """Draw for a wide and for a narrow page; the traces are the same and are stored once."""
    wide, narrow = json.loads(draw(None).to_json()), json.loads(draw(1).to_json())
    parts = {"data": wide["data"], "wide": wide["layout"], "narrow": narrow["layout"]}
    text = json.dumps(parts, separators=(",", ":"), allow_nan=False)
    # inside a script element only "<" could end it (</script) or open a comment (<!--)
    return Picture(key, heading, caption, Markup(text.replace("<", "\\u003c")), facts)


def page(template: str, **content: object) -> str:
    """A page of this package's templates as HTML, with the style and the plotting library in it."""
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
