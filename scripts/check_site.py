"""Looks at the built documentation in a browser: axe-core, console, requests, pages wider than the window.

    make docs
    python scripts/check_site.py                  every page, light and dark, 400 and 1,400 px
    python scripts/check_site.py index findings   these pages only
    python scripts/check_site.py --shots FOLDER   and keeps what they look like

It needs the packages playwright and axe-playwright-python, and Chromium. Exit status 1 if anything is found.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, sync_playwright

SITE = Path(__file__).resolve().parents[1] / "site"
LOOKS = tuple(itertools.product(("light", "dark"), (400, 1400)))


def every_page(site: Path) -> list[str]:
    """Names of the pages of a site, without the one for addresses that lead nowhere."""
    pages = (path.relative_to(site).with_suffix("").as_posix() for path in site.rglob("*.html"))
    return sorted({*pages} - {"404"})


def problems(page: Page, address: str) -> Iterator[str]:
    """Everything wrong with a page."""
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on(
        "request",
        lambda request: (
            None if request.url.startswith(("file:", "data:", "blob:")) else said.append(request.url)
        ),
    )
    page.goto(address)
    page.wait_for_timeout(300)
    yield from said
    wider = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    if wider > 0:
        yield f"{wider} px wider than the window"
    for one in Axe().run(page).response["violations"]:
        places = ", ".join(str(node["target"]) for node in one["nodes"][:4])
        yield f"{one['id']} ({one['impact']}, {len(one['nodes'])} places: {places})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pages", nargs="*", help="by default all")
    parser.add_argument("--site", type=Path, default=SITE)
    parser.add_argument("--shots", type=Path)
    given = parser.parse_args()
    names = given.pages or every_page(given.site)
    found = 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for scheme, width in LOOKS:
            context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
            for name in names:
                page = context.new_page()
                for problem in problems(page, f"{given.site.resolve().as_uri()}/{name}.html"):
                    print(f"{name} {scheme} {width}: {problem}", flush=True)
                    found += 1
                if given.shots is not None:
                    page.screenshot(
                        path=given.shots / f"{name.replace('/', '-')}-{scheme}-{width}.png", full_page=True
                    )
                page.close()
        browser.close()
    print(f"{len(names)} pages, each in {len(LOOKS)} looks: {found or 'no'} problems")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
