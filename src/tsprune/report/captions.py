"""The words beside figures and tables, from captions.toml."""

from __future__ import annotations

import functools
import tomllib
from importlib import resources


@functools.cache
def _words() -> dict[str, dict[str, str]]:
    text = resources.files("tsprune.report").joinpath("captions.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def words(figure: str, part: str = "text", **values: object) -> str:
    """The `part` ("heading", "text", "lead", ...) of the words of a figure, with its {names} filled in."""
    found = _words()
    return " ".join(found[figure][part].format(**found["phrases"], **values).split())
