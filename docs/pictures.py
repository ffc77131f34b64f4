"""Make the pictures of README and docs with the models in the package: `make pictures`. Needs Chromium or
Chrome."""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from act2see import ask, create_act2see
from act2see.cli.demo import item_shown
from act2see.cli.ui import samples
from act2see.graphs.config import load_config
from act2see.graphs.parts import cached_parts
from act2see.micro.world import write_clip
from act2see.serve.ui.catalog import VideoCatalog
from act2see.serve.ui.runs import Runs
from act2see.serve.ui.server import Site, served
from act2see.trace.page import trace_html

IMAGES = Path(__file__).parent / "img"


def shoot(page: Any, name: str, tallest: int = 4000) -> None:
    """Save a screenshot of a whole page, cut off at `tallest` pixels."""
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    top = picture.crop((0, 0, picture.width, min(picture.height, tallest)))
    top.quantize(128).save(IMAGES / name, optimize=True)


def trace_page(browser: Any, folder: Path) -> None:
    """Make `trace.png`: the page of a trace, as `act2see ask --html` writes it."""
    config = load_config("micro")
    graph, store = create_act2see(config), cached_parts(config).resources.store
    item = item_shown("both")
    trace = ask(graph, write_clip(item.clip, folder / "clip.mp4"), item.text, item.options)
    html = folder / "trace.html"
    html.write_text(trace_html(trace, store), encoding="utf-8")
    page = browser.new_page(viewport={"width": 900, "height": 800})
    page.goto(html.as_uri())
    shoot(page, "trace.png")


def web_page(browser: Any, folder: Path) -> None:
    """Make `ui.png` and `compare.png`: a question asked with both tools on the web page, then without them,
    then both runs side by side."""
    site = Site(
        {"micro": load_config("micro")},
        VideoCatalog(folder / "uploads", samples(folder / "samples")),
        Runs(folder / "runs"),
    )
    with served(site) as address:
        page = browser.new_page(viewport={"width": 1200, "height": 800})
        page.set_default_timeout(300_000)
        page.goto(address)
        page.locator("body[data-ready]").wait_for()
        page.get_by_role("combobox", name="Video").click()
        page.get_by_role("option", name="sample: imagine").click()
        page.get_by_label("Question").and_(page.locator(":not(:placeholder-shown)")).wait_for()
        page.locator("video[aria-label*=imagine]").evaluate(
            "v => new Promise(r => v.readyState >= 2 ? r() : v.onloadeddata = r)"
        )
        for name in ("ui.png", ""):
            page.get_by_role("button", name="Ask", exact=True).click()
            page.get_by_role("button", name="Stop").and_(page.locator(":enabled")).wait_for()
            page.locator("[role=status]", has_text="Answered").wait_for()
            page.get_by_role("button", name="Ask", exact=True).and_(page.locator(":enabled")).wait_for()
            if name:
                shoot(page, name, 2020)
                page.get_by_role("button", name="Tools, budget").click()
                for tool in ("retrieve", "generate"):
                    page.get_by_role("checkbox", name=tool).uncheck()
        page.get_by_role("tab", name="Compare").click()
        page.locator("#comparison .a2s-column article").nth(1).wait_for()
        shoot(page, "compare.png", 1300)


def main() -> None:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        raise SystemExit("this needs Chromium or Chrome on the PATH")
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        trace_page(browser, Path(temporary) / "trace")
        web_page(browser, Path(temporary) / "page")
        browser.close()


if __name__ == "__main__":
    main()
