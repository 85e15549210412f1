"""Examples in docstrings say what is so."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import tsprune

SOURCE = Path(tsprune.__file__).parent


def with_examples() -> list[str]:
    """Names of the modules with an example in some docstring."""
    found = [path for path in sorted(SOURCE.rglob("*.py")) if ">>> " in path.read_text()]
    return [".".join(path.relative_to(SOURCE.parent).with_suffix("").parts) for path in found]


@pytest.mark.parametrize("name", with_examples())
def test_examples_in_docstrings(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name.removesuffix(".__init__")))
    assert result.attempted > 0
    assert result.failed == 0
