"""The contents of a page: sections of figures and tables, with words from captions.toml."""

from __future__ import annotations

import base64
import dataclasses
import functools
import gzip
import itertools
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from importlib import resources
from types import MappingProxyType
from typing import Any

import jinja2
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from tsprune.glossary import Term, glossary, with_definitions
from tsprune.report.tables import PageTable
from tsprune.studies.study_result import Claim


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

    data : `packed` JSON: traces, and two layouts that the page chooses from by its width
    facts : sentences about the figure, above it
    folded : whether it is drawn when a reader unfolds it
    figure : the wide layout; still : that for pictures outside the page, at most two panels side by side
    """

    key: str
    heading: str
    caption: str
    data: Markup
    facts: tuple[str, ...] = ()
    folded: bool = False
    figure: go.Figure = dataclasses.field(default_factory=go.Figure, repr=False)
    still: Callable[[], go.Figure] = dataclasses.field(default=go.Figure, repr=False)


@dataclasses.dataclass(frozen=True)
class CitedWork:
    """A work that a section refers to: its name, and a link with its label."""

    name: str
    label: str
    address: str


@dataclasses.dataclass(frozen=True)
class ModelClaims:
    """Claims about one model, or about all, with their verdicts."""

    about: str
    claims: tuple[Claim, ...]


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading with text, pictures and folded tables below it.

    brief : its name in the contents, from which its anchor is made; the heading if empty
    leads : paragraphs below the heading; points : a list below them
    words : terms that are defined in the section
    """

    heading: str
    pictures: tuple[Picture, ...] = ()
    tables: tuple[PageTable, ...] = ()
    leads: tuple[str, ...] = ()
    points: tuple[str, ...] = ()
    brief: str = ""
    source: CitedWork | None = None
    words: tuple[Term, ...] = ()
    judged: tuple[ModelClaims, ...] = ()
    key: str = ""


def picture(
    key: str,
    draw: Callable[..., go.Figure],
    *of: object,
    number: str = "",
    facts: tuple[str, ...] = (),
    values: Mapping[str, object] = MappingProxyType({}),
    folded: bool = False,
    **how: Any,
) -> Picture:
    """The figure `draw(*of, **how, columns=...)` in two layouts; the traces are the same and stored once.

    key : of its words in captions.toml, with the `values` that these need
    number : distinguishes figures of one key
    """
    figure = draw(*of, **how, columns=None)
    wide, narrow = (json.loads(one.to_json()) for one in (figure, draw(*of, **how, columns=1)))
    parts = {"data": wide["data"], "wide": wide["layout"], "narrow": narrow["layout"]}
    text = json.dumps(parts, separators=(",", ":"), allow_nan=False)
    heading, caption = (words(key, part, **values) for part in ("heading", "text"))
    still = functools.partial(draw, *of, **how, columns=2)
    return Picture(f"{key}{number}", heading, caption, packed(text), facts, folded, figure, still)


def packed(text: str) -> Markup:
    """`text`, compressed, in letters and digits."""
    return Markup(base64.b64encode(gzip.compress(text.encode("utf-8"), 9, mtime=0)).decode("ascii"))


class _Explained:
    """Text with links to the definitions of its terms: the first occurrence in each section."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def fresh(self) -> str:
        """A section begins."""
        self._seen.clear()
        return ""

    def __call__(self, text: str) -> Markup:
        return Markup(with_definitions(text, self._seen))


@functools.cache
def _library() -> Markup:
    """The plotting library, compressed: it is most of a page."""
    return packed(get_plotlyjs())


def pictures_in(sections: Iterable[Section]) -> list[Picture]:
    """The pictures of a page, in order."""
    return [picture for section in sections for picture in section.pictures]


def anchored(sections: Iterable[Section]) -> list[Section]:
    """Sections with a name in the contents and a unique anchor each."""
    taken: set[str] = set()
    found = []
    for section in sections:
        brief = section.brief or section.heading
        key = stem = f"s-{re.sub('[^a-z0-9]+', '-', brief.lower()).strip('-')}"
        for number in itertools.count(2):
            if key not in taken:
                break
            key = f"{stem}-{number}"
        taken.add(key)
        found.append(dataclasses.replace(section, brief=brief, key=key))
    return found


def page(template: str, *, sections: Iterable[Section], **content: object) -> str:
    """A page of this package's templates as HTML, including its style and the plotting library."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tsprune", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    terms = _Explained()
    environment.filters["terms"], environment.filters["packed"] = terms, packed
    environment.globals["fresh"] = terms.fresh
    css = resources.files("tsprune.report").joinpath("report.css").read_text(encoding="utf-8")
    return environment.get_template(template).render(
        css=Markup(css), library=_library(), glossary=glossary(), sections=anchored(sections), **content
    )
