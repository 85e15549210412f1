"""Data sources: built-in ones, those of other packages, and copies of GIFT-Eval, by one function."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.suites import small_suite
from tsprune.data import SOURCES, DataSource, Suite, chaos, gift_eval, open_suite, pocket
from tsprune.errors import TspruneError


def test_the_built_in_sources_are_the_suites_of_their_names() -> None:
    assert open_suite("pocket") is pocket()
    assert open_suite("chaos", ["lorenz/*"]).fingerprint == chaos(["lorenz"]).fingerprint


def test_a_directory_is_a_copy_of_gift_eval(shared: Path) -> None:
    root, configs = str(shared / "data" / "gift_eval"), ["m4_weekly/W/short"]
    assert open_suite(root, configs).fingerprint == gift_eval(root, configs).fingerprint


def test_another_packages_source_is_opened_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES._items, "mine", DataSource("mine", small_suite))
    assert len(open_suite("mine")) == len(small_suite())
    assert [c.name for c in open_suite("mine", ["second/*"]).configurations] == ["second/D/short"]
    with pytest.raises(TspruneError, match=r"sources: pocket, pocket-large, chaos, mine;"):
        open_suite("nowhere")


def test_a_source_must_return_a_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing: dict[str, Suite] = {}
    monkeypatch.setitem(SOURCES._items, "mine", DataSource("mine", lambda: nothing))  # type: ignore[arg-type, return-value]
    with pytest.raises(TspruneError, match=r"the data source mine returned \{\} instead of a Suite"):
        open_suite("mine")
