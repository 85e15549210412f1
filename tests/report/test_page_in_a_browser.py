"""The report in a real browser: it fits, it is accessible, and definitions appear on focus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tsprune.report import write_report
from tsprune.studies.study_result import Study

# names of figures whose legend and buttons meet, and of those that are higher than their box
COVERED = """
() => [...document.querySelectorAll("figure")].filter((figure) => {
  const [legend, button] = [".legend .bg", ".updatemenu-button"].map((one) => figure.querySelector(one));
  if (!legend || !button) return false;
  return legend.getBoundingClientRect().top < button.getBoundingClientRect().bottom - 1;
}).map((figure) => figure.id)
"""
SPILLED = """
() => [...document.querySelectorAll(".plot")].filter((box) => {
  const drawn = box.querySelector(".main-svg");
  return drawn && drawn.getBoundingClientRect().height > box.getBoundingClientRect().height + 1;
}).map((box) => box.parentElement.id)
"""


@pytest.mark.parametrize(("width", "scheme"), [(400, "light"), (1400, "dark")])
def test_the_page_fits_and_axe_finds_nothing(
    browser: Any, study: Study, tmp_path: Path, width: int, scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    write_report(study, tmp_path / "report.html")
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.goto((tmp_path / "report.html").as_uri())
    page.wait_for_selector("html[data-drawn]", state="attached", timeout=60_000)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator("#removals svg.main-svg").count() > 0
    assert page.evaluate(COVERED) == []
    buttons = page.locator("#removals .updatemenu-item-text")
    assert buttons.all_text_contents() == ["✓ MASE", "CRPS"]
    page.locator("#removals .updatemenu-button").nth(1).click()
    assert buttons.all_text_contents() == ["MASE", "✓ CRPS"]
    page.set_viewport_size({"width": width - 20, "height": 900})
    page.wait_for_timeout(300)  # plotly resizes after a pause
    assert page.evaluate(SPILLED) == []
    term = page.locator("a.term").first
    term.focus()
    assert page.locator("#meaning").inner_text() in page.locator("#glossary dd").all_text_contents()
    page.keyboard.press("Escape")
    assert not page.locator("#meaning").is_visible()
    found = axe.run(page).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []
    assert errors == []
    context.close()
