"""The explorer in a real browser: every control does what it says, and the page agrees with the model."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.explorer import screens
from tsprune.explorer import Session
from tsprune.explorer.chosen_series import window_of
from tsprune.explorer.static_page import write_explorer
from tsprune.hooks.ablation import Ablation
from tsprune.progress import silent
from tsprune.pruning import Plan

Opened = Any  # a page of Playwright

# how many cells have a value of a score
VALUES = """
async (score) => {
  const body = JSON.stringify({ score, series: { configuration: "first/D/short", window: 0 } });
  const headers = { "content-type": "application/json" };
  const found = await (await fetch("api/scores", { method: "POST", headers, body })).json();
  return Object.values(found.values).filter((value) => value !== null).length;
}
"""
# presses the pointer on one element after the other, faster than anything is answered
CLICKS = """
async ([selectors, pause]) => {
  for (const selector of selectors) {
    const there = document.querySelector(selector);
    if (there.matches(".cell")) {
      const how = { bubbles: true, button: 0, pointerId: 1 };
      there.dispatchEvent(new PointerEvent("pointerdown", how));
      there.dispatchEvent(new PointerEvent("pointerup", how));
    } else {
      there.click();
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}
"""
RESTYLE = """
(text) => {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(text);
  document.adoptedStyleSheets = [sheet];
}
"""
# styles, and the part that then looks unlike its stored screen; another font is no fault
SPOILT = {
    "body, button, select { font-family: 'DejaVu Serif', serif !important }": None,
    "#map { visibility: hidden }": "map",
    "#map .row { flex-wrap: wrap; width: 60px }": "map",
    "#forecast svg { display: none }": "forecast",
    "#losses { visibility: hidden }": "losses",
}


@pytest.fixture(scope="module")
def opened(browser: Any, address: str) -> Iterator[Opened]:
    """The page, open; no script error and no message on its console when the tests are over."""
    context = browser.new_context(viewport={"width": 1400, "height": 900}, accept_downloads=True)
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address.rstrip("/"))
    page = context.new_page()
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda one: one.url.startswith((address, "blob:", "data:")) or faults.append(one.url))
    page.goto(address)
    page.wait_for_selector("body[data-ready]")
    yield page
    assert faults == []
    context.close()


@pytest.fixture(scope="module")
def second(opened: Opened) -> Iterator[Opened]:
    """Another page of the same server."""
    page = opened.context.new_page()
    page.goto(opened.url)
    page.wait_for_selector("body[data-ready]")
    yield page
    page.close()


@pytest.fixture
def page(opened: Opened) -> Opened:
    """The page with every component on, the first series and the first score."""
    opened.evaluate("location.hash = 'score=stable_rank&series=first/D/short&window=0'")
    settle(opened)
    return opened


def settle(page: Opened) -> None:
    """Waits until every request is answered."""
    page.wait_for_timeout(20)
    page.wait_for_selector('body[aria-busy="false"]')


def until(page: Opened, condition: str) -> None:
    """Waits for a condition; Playwright's own way needs `eval`, which the page's policy forbids."""
    for _ in range(400):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(25)
    raise AssertionError(condition)


def require_no_violation(page: Opened, where: object) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page)
    assert found.violations_count == 0, (where, found.generate_report())


def cell(address: str) -> str:
    return f'[data-address="{address}"]'


def off(page: Opened) -> list[str]:
    found: list[str] = page.eval_on_selector_all(
        '.cell[aria-checked="false"]', "cells => cells.map((one) => one.dataset.address)"
    )
    return found


def shown_median(page: Opened) -> list[float]:
    """The last curve of the forecast's figure."""
    values: list[float] = page.evaluate("Array.from(document.getElementById('forecast').data.at(-1).y)")
    return values


def median(session: Session, addresses: list[str], mode: Any = "zero") -> np.ndarray:
    series = window_of(session.suite, "first/D/short", 0, session.model.context_length)
    components = tuple(session.cells[address] for address in addresses)
    return session.without(series, Ablation(components, mode)).quantiles[1]


def test_a_click_switches_off_and_on(page: Opened, session: Session) -> None:
    assert off(page) == []
    whole = shown_median(page)
    np.testing.assert_allclose(whole, median(session, []), rtol=1e-6)
    page.click(cell("encoder.1.self.head.2"))
    settle(page)
    assert off(page) == ["encoder.1.self.head.2"]
    np.testing.assert_allclose(shown_median(page), median(session, off(page)), rtol=1e-6)
    assert page.input_value("#component") == "encoder.1.self.head.2"
    assert page.inner_text("#status").startswith(f"1 of {len(session.cells)} components off")
    assert page.locator("#losses tbody tr").count() == 4
    page.click(cell("encoder.1.self.head.2"))
    settle(page)
    assert off(page) == []
    assert shown_median(page) == whole


def test_drag_rectangle_and_layer(page: Opened) -> None:
    first, second = (page.locator(cell(f"encoder.0.self.head.{head}")).bounding_box() for head in (0, 2))
    page.mouse.move(first["x"] + 5, first["y"] + 5)
    page.mouse.down()
    page.mouse.move(second["x"] + 5, second["y"] + 5, steps=8)
    page.mouse.up()
    settle(page)
    assert off(page) == [f"encoder.0.self.head.{head}" for head in range(3)]
    page.click("#reset")
    page.click(cell("decoder.0.self.head.1"))
    page.click(cell("decoder.1.self.head.2"), modifiers=["Shift"])
    settle(page)
    assert off(page) == [f"decoder.{layer}.self.head.{head}" for layer in (0, 1) for head in (1, 2)]
    page.click('[aria-label="switch decoder layer 0"]')
    assert {one for one in off(page) if one.startswith("decoder.0.")} >= {"decoder.0.mlp"}
    assert len([one for one in off(page) if one.startswith("decoder.0.")]) == 7
    page.click('[aria-label="switch decoder layer 0"]')
    settle(page)
    assert off(page) == ["decoder.1.self.head.1", "decoder.1.self.head.2"]


def test_undo_redo_and_all_on(page: Opened, session: Session) -> None:
    for address in ("encoder.0.mlp", "decoder.0.mlp"):
        page.click(cell(address))
    page.select_option("#mode", "mean")
    settle(page)
    np.testing.assert_allclose(shown_median(page), median(session, off(page), "mean"), rtol=1e-6)
    page.click("#undo")
    assert page.input_value("#mode") == "zero"
    page.keyboard.press("Control+z")
    assert off(page) == ["encoder.0.mlp"]
    page.click("#redo")
    page.keyboard.press("Control+y")
    settle(page)
    assert (off(page), page.input_value("#mode")) == (["encoder.0.mlp", "decoder.0.mlp"], "mean")
    np.testing.assert_allclose(shown_median(page), median(session, off(page), "mean"), rtol=1e-6)
    page.click("#reset")
    settle(page)
    assert off(page) == []
    assert page.is_disabled("#reset")
    assert page.is_disabled("#prune")


def test_the_keyboard_reaches_every_cell(page: Opened, session: Session) -> None:
    page.focus('.cell[tabindex="0"]')
    page.keyboard.press("Home")
    seen = []
    for _ in session.cells:
        seen.append(page.evaluate("document.activeElement.dataset.address"))
        page.keyboard.press("ArrowRight")
    assert seen == list(session.cells)
    page.keyboard.press("Home")
    for _ in range(4):
        page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.dataset.address") == "decoder.2.self.head.0"
    page.keyboard.press("ArrowUp")
    page.keyboard.press("End")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.dataset.address") == "decoder.2.mlp"
    page.focus(cell("decoder.2.cross.head.0"))
    page.keyboard.press("Space")
    page.keyboard.press("Shift+ArrowRight")
    settle(page)
    assert off(page) == ["decoder.2.cross.head.0", "decoder.2.cross.head.1"]
    assert page.get_attribute(cell("decoder.2.cross.head.0"), "role") == "switch"
    assert "stable rank" in page.get_attribute(cell("decoder.2.cross.head.0"), "aria-label")


def test_every_score_colours_the_map(page: Opened, session: Session) -> None:
    names = page.eval_on_selector_all("#score option", "all => all.map((one) => one.value)")
    assert names[0] == "stable_rank"
    for name in names:
        page.select_option("#score", name)
        until(page, "!document.getElementById('score-about').textContent.includes('measured')")
        settle(page)
        assert page.is_hidden("#problem"), (name, page.inner_text("#problem"))
        found = page.evaluate(VALUES, name)
        assert page.locator(".cell:not(.unknown)").count() == found
        assert name == "period_share" or found >= 5, name  # the patches are longer than the periods
        assert f"score={name}" in page.url


def test_series_windows_and_history(page: Opened, session: Session) -> None:
    page.select_option("#configuration", "second/D/short")
    settle(page)
    assert page.evaluate("document.getElementById('forecast').data.at(-1).y.length") == 11
    windows = page.eval_on_selector_all("#window option", "all => all.map((one) => one.value)")
    assert windows == ["0", "2", "3"]
    before = shown_median(page)
    page.select_option("#window", "3")
    settle(page)
    assert shown_median(page) != before
    page.select_option("#shown", "0")
    history = page.evaluate("document.getElementById('forecast').data[0].y.length")
    assert history == session.model.context_length
    page.select_option("#shown", "3")
    assert page.evaluate("document.getElementById('forecast').data[0].y.length") == 33


def test_a_series_is_drawn_or_typed(page: Opened) -> None:
    page.click("#draw")
    box = page.locator("#canvas").bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 5, box["y"] + 150, steps=5)
    page.mouse.up()
    assert len(page.input_value("#values").split()) > 100
    page.click("#draw-use")
    settle(page)
    assert "drawn=" in page.url
    assert page.evaluate("document.getElementById('forecast').data.at(-1).y.length") == 48
    page.click("#draw")
    page.fill("#values", "1, 2 x")
    page.click("#draw-use")
    assert page.inner_text("#draw-problem") == "These are not all numbers."
    page.click("#draw-clear")
    page.click("#draw-use")
    assert "at least 8" in page.inner_text("#draw-problem")
    page.click("#draw-wave")
    page.click("#draw-use")
    settle(page)
    assert page.evaluate("document.getElementById('forecast').data[0].y.length") > 40
    page.click("#undo")
    page.click("#undo")
    settle(page)
    assert page.input_value("#configuration") == "first/D/short"


def test_the_view_of_a_component(page: Opened, session: Session) -> None:
    page.select_option("#component", "encoder.0.self.head.1")
    settle(page)
    assert off(page) == []
    assert page.inner_text("#component-about").startswith("Sharpness 0.")
    assert "looks most at" in page.inner_text("#query-text")
    last = page.inner_text("#query-text")
    page.focus("#query")
    page.keyboard.press("Home")
    assert page.inner_text("#query-text") != last
    map_ = page.locator("#attention .nsewdrag").last.bounding_box()
    page.mouse.move(map_["x"] + map_["width"] / 2, map_["y"] + 0.9 * map_["height"])
    until(page, "Number(document.getElementById('query').value) > 0")
    series = page.locator("#attention .nsewdrag").first.bounding_box()
    page.mouse.move(series["x"] + 2, series["y"] + series["height"] / 2)
    until(page, "Number(document.getElementById('query').value) === 0")
    page.click("#toggle")
    settle(page)
    assert off(page) == ["encoder.0.self.head.1"]
    assert page.inner_text("#toggle") == "Switch on"
    page.select_option("#component", "decoder.0.mlp")
    settle(page)
    assert page.is_hidden("#attention")
    assert page.is_visible("#writes")


def test_a_link_restores_the_view(page: Opened, session: Session) -> None:
    page.click(cell("encoder.0.mlp"))
    page.click(cell("decoder.2.cross.head.1"))
    page.select_option("#mode", "resample")
    page.select_option("#window", "2")
    page.select_option("#score", "output_norm")
    settle(page)
    page.click("#link")
    link = page.evaluate("navigator.clipboard.readText()")
    other = page.context.new_page()
    other.goto(link)
    other.wait_for_selector("body[data-ready]")
    settle(other)
    for read in (off, shown_median, lambda one: one.inner_text("#losses"), lambda one: one.url):
        assert read(other) == read(page)
    for name in ("mode", "score", "window", "configuration", "component"):
        assert other.input_value(f"#{name}") == page.input_value(f"#{name}")
    other.close()
    page.evaluate("location.hash = 'off=encoder.0.mlp_encoder.99.mlp&series=nothing&mode=noise'")
    settle(page)
    assert off(page) == ["encoder.0.mlp"]
    assert page.inner_text("#problem").startswith("Left out of the link: 2 parts")


def test_save_as_plan_and_prune(page: Opened, session: Session, tmp_path: Path) -> None:
    for address in ("encoder.1.mlp", "encoder.0.self.head.1"):
        page.click(cell(address))
    settle(page)
    with page.expect_download() as download:
        page.click("#plan")
    download.value.save_as(tmp_path / "plan.json")
    plan = Plan.load(tmp_path / "plan.json")
    plan.check(session.model)
    assert [c.address for c in plan.components] == off(page)
    page.click("#prune")
    page.click("#copy-command")
    command = page.evaluate("navigator.clipboard.readText()")
    assert command.startswith("tsprune prune ")
    assert "--plan plan.json --out smaller" in command
    page.click("#copy-python")
    python = page.evaluate("navigator.clipboard.readText()")
    assert all(f'"{address}"' in python for address in off(page))
    page.keyboard.press("Escape")
    assert page.is_hidden("#prune-dialog")


def test_random_clicks_leave_model_and_page_consistent(page: Opened, session: Session) -> None:
    rng, every = np.random.default_rng(0), list(session.cells)
    before = {name: weight.clone() for name, weight in session.model.module.state_dict().items()}
    expected: set[str] = set()
    aborted: list[str] = []
    page.on("requestfailed", lambda one: aborted.append(one.url))
    clicks = [every[place] for place in rng.integers(len(every), size=200)]
    for address in clicks:
        expected ^= {address}
    page.evaluate(CLICKS, [[cell(address) for address in clicks], 4])
    settle(page)
    assert set(off(page)) == expected
    assert page.inner_text("#status").startswith(f"{len(expected)} of {len(every)}")
    np.testing.assert_allclose(shown_median(page), median(session, off(page)), rtol=1e-6)
    assert set(page.url.partition("off=")[2].split("_")) == expected
    assert aborted  # clicks that came too fast
    after = session.model.module.state_dict()
    assert all((weight == after[name]).all() for name, weight in before.items())
    hooks = [m for m in session.model.module.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert not hooks
    page.evaluate(CLICKS, [["#undo"] * 199, 0])
    settle(page)
    assert off(page) == clicks[:1]


def test_an_error_of_the_server_is_shown_and_goes_away(second: Opened) -> None:
    other = second
    other.route("**/api/forecast", lambda route: route.abort())
    other.click(cell("encoder.0.mlp"))
    other.wait_for_selector("#problem:not([hidden])")
    assert "does not answer" in other.inner_text("#problem")
    other.unroute("**/api/forecast")
    other.click(cell("encoder.1.mlp"))
    settle(other)
    assert other.is_hidden("#problem")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(page: Opened, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    page.click(cell("encoder.0.self.head.1"))
    settle(page)
    for dialog in (None, "draw", "prune"):
        if dialog:
            page.click(f"#{dialog}")
        require_no_violation(page, dialog)
        if dialog:
            page.keyboard.press("Escape")
    page.emulate_media(color_scheme="light")


def test_it_fits_every_width_and_looks_as_stored(page: Opened) -> None:
    """TSPRUNE_WRITE_SCREENS=1 stores the screens anew; look at them then."""
    page.click(cell("encoder.0.self.head.1"))
    page.evaluate("document.activeElement.blur()")
    page.mouse.move(0, 0)
    for width in (700, 1001, 2000, 1400, 400):
        page.set_viewport_size({"width": width, "height": 900})
        for scheme in ("light", "dark") if width in (400, 1400) else ():
            page.emulate_media(color_scheme=scheme)
            settle(page)
            page.wait_for_timeout(300)  # transitions
            screen, name = screens.taken(page), f"{width}-{scheme}"
            if os.environ.get("TSPRUNE_WRITE_SCREENS") == "1":
                screens.store(name, *screen)
            assert screens.differences(screen, screens.stored(name)) == [], name
        settle(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        wide = page.eval_on_selector_all(
            "main .plot",
            "all => all.filter((one) => one.clientWidth > window.innerWidth).map((one) => one.id)",
        )
        assert wide == []
    for style, part in SPOILT.items():
        page.evaluate(RESTYLE, style)
        found = screens.differences(screens.taken(page), screens.stored("400-dark"))
        assert [fault.split()[0].strip(":") for fault in found] == ([part] if part else []), (style, found)
    page.evaluate("document.adoptedStyleSheets = []")
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": 1400, "height": 900})


def test_two_pages_do_not_disturb_each_other(page: Opened, second: Opened, session: Session) -> None:
    other = second
    other.evaluate("location.hash = 'score=stable_rank&series=first/D/short&window=0'")
    settle(other)
    page.click(cell("encoder.0.mlp"))
    other.click(cell("decoder.1.mlp"))
    page.click(cell("encoder.1.mlp"))
    settle(page)
    settle(other)
    for one, expected in ((page, ["encoder.0.mlp", "encoder.1.mlp"]), (other, ["decoder.1.mlp"])):
        assert off(one) == expected
        np.testing.assert_allclose(shown_median(one), median(session, expected), rtol=1e-6)


def test_the_description_is_what_the_page_shows(page: Opened, address: str, session: Session) -> None:
    about = json.loads(page.evaluate("fetch('api/model').then((one) => one.text())"))
    assert page.inner_text("#subject").startswith(about["model"]["name"])
    assert page.locator(".cell").count() == len(session.cells)


def test_a_static_page_works_without_a_server(browser: Any, session: Session, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_explorer(session, path, progress=silent)
    faults: list[str] = []
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda one: one.url.startswith(("file:", "data:", "blob:")) or faults.append(one.url))
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-ready]")
    require_no_violation(page, "the page as opened")
    for name in ("encoder.0.self.head.1", "decoder.1.mlp", "decoder.2.cross.head.0"):
        page.click(cell(name))
        settle(page)
        assert off(page) == [name]
        np.testing.assert_allclose(shown_median(page), median(session, [name]), rtol=1e-5)
        assert page.is_hidden("#problem")
    page.select_option("#configuration", "second/D/short")
    for score in page.eval_on_selector_all("#score option", "all => all.map((one) => one.value)"):
        page.select_option("#score", score)
    settle(page)
    assert page.locator(".cell:not(.unknown)").count() > 10
    page.click("#prune")
    page.emulate_media(color_scheme="dark")
    require_no_violation(page, "the dialog, dark")
    assert "tsprune prune" in page.inner_text("#command")
    page.keyboard.press("Escape")
    page.click(cell("decoder.2.cross.head.0"))
    settle(page)
    assert off(page) == []
    assert page.is_hidden("#problem")
    assert faults == []
    page.close()
