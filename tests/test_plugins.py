"""Registries: built-in entries, entry points of other packages, and those that are broken."""

from __future__ import annotations

import dataclasses
import sys
import warnings
from pathlib import Path

import pytest

from tsprune.errors import TspruneError, TspruneWarning
from tsprune.plugins import Registry


@dataclasses.dataclass(frozen=True)
class Thing:
    name: str


def registry() -> Registry[Thing]:
    return Registry("tsprune.test_things", Thing, [Thing("own")], noun="thing")


def distribution(folder: Path, monkeypatch: pytest.MonkeyPatch, **entries: str) -> None:
    """A distribution on sys.path that has these entry points."""
    info = folder / "stranger-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in entries.items()]
    (info / "entry_points.txt").write_text("\n".join(["[tsprune.test_things]", *lines, ""]))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "stranger_things", raising=False)


def test_entry_points_of_other_packages_come_after_the_built_in_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stranger_things.py").write_text(
        "from tests.test_plugins import Thing\nONE = Thing('one')\nMORE = [Thing('two'), Thing('three')]\n"
    )
    distribution(tmp_path, monkeypatch, one="stranger_things:ONE", more="stranger_things:MORE")
    assert list(registry()) == ["own", "one", "two", "three"]


@pytest.mark.parametrize(
    "source",
    [
        "ONE = 3",
        "raise RuntimeError('broken')",
        "",
        "from tests.test_plugins import Thing\nONE = Thing('own')",
    ],
)
def test_a_broken_entry_point_is_left_out_with_a_warning(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stranger_things.py").write_text(source)
    distribution(tmp_path, monkeypatch, one="stranger_things:ONE")
    with pytest.warns(TspruneWarning, match="stranger_things:ONE"):
        assert list(registry()) == ["own"]


def test_an_unknown_name_is_one_line_that_lists_the_known() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(TspruneError, match=r"unknown thing 'x'; one of: own"):
            registry().named("x")
        with pytest.raises(TspruneError, match="unknown thing"):
            registry().named(["own"])
