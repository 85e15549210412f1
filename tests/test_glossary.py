"""The glossary: one home for its words, and links to them in texts."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from tsprune.glossary import glossary, with_definitions

ROOT = Path(__file__).resolve().parent.parent


def test_the_page_is_what_the_script_writes() -> None:
    spec = importlib.util.spec_from_file_location("glossary_page", ROOT / "scripts" / "glossary.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.PAGE.read_text(encoding="utf-8") == script.page()


def test_no_word_has_two_meanings() -> None:
    forms = [form for term in glossary().values() for form in term.forms]
    assert len(forms) == len(set(forms))
    assert "stable rank" in forms


def test_the_first_occurrence_of_a_term_is_a_link() -> None:
    seen: set[str] = set()
    text = with_definitions(
        "Stable rank <b> & stable ranks; heads@1pp, MASE-like, x.mase, unablated, ablated", seen
    )
    assert seen == {"stable-rank", "heads-at", "ablation"}
    assert re.findall(r">([^<]+)</a>", text) == ["Stable rank", "heads@1pp", "ablated"]
    assert "&lt;b&gt; &amp; stable ranks" in text
    assert "<a" not in with_definitions("stable rank", seen)
