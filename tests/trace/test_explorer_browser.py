"""The front end of the trace explorer in a headless Chromium, with a model object like anywidget's."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from tests.trace.board_chain import Seen, seen_in

from act2see.trace import explorer
from act2see.trace.explorer import explore
from act2see.trace.record import Answer, Question, Review
from act2see.trace.trace import Trace

pytest.importorskip("anywidget", reason="the widget needs anywidget: pip install 'act2see[notebook]'")
HOSTILE = '<img src=x onerror="window.hit=1"></b><script>window.hit=1</script>${window.hit=1}\ud800'
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    return seen_in(tmp_path_factory.mktemp("asked"))


def hostile(trace: Trace) -> Trace:
    """Return the trace with hostile text in every text field."""
    first, call, came, *_ = trace.segments
    review = Review(decision="replace", by=HOSTILE, query="the triangle blinks", reason=HOSTILE)
    segments = (
        first.model_copy(update={"text": HOSTILE}),
        call.model_copy(update={"tag": HOSTILE, "query": HOSTILE}),
        came.model_copy(update={"note": HOSTILE, "review": review}),
        Answer(text="", body=HOSTILE),
    )
    video = trace.video.model_copy(update={"path": f"clips/{HOSTILE.replace('/', '')}"})
    return trace.model_copy(
        update={
            "video": video,
            "question": Question(text=HOSTILE, options=(HOSTILE, "other")),
            "segments": segments,
        }
    )


HARNESS = """async ({esm, state}) => {
  const heard = {};
  window.saved = 0;
  window.model = {
    get: (k) => state[k],
    set: (k, v) => {
      if (state[k] === v) return;
      state[k] = v;
      (heard["change:" + k] ?? []).forEach((f) => f());
    },
    on: (e, f) => (heard[e] ??= []).push(f),
    off: (e, f) => { heard[e] = heard[e].filter((g) => g !== f); },
    save_changes: () => { window.saved += 1; },
  };
  const module = await import(URL.createObjectURL(new Blob([esm], {type: "text/javascript"})));
  window.leave = module.default.render({model, el: document.querySelector("main")});
}"""


STATE = "[model.get('at'), model.get('call'), window.saved]"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="driving a browser needs playwright")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium or Chrome on the PATH")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def show(browser: Any) -> Iterator[Any]:
    """Draw a widget in a page of its own. At the end, no page may have failed or sent a request."""
    pages, wrong = [], []

    def draw(widget: Any, width: int = 1200) -> Any:
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.on(
            "request",
            lambda r: None if r.url.startswith(("data:", "blob:", "about:")) else wrong.append(r.url),
        )
        page.on("pageerror", lambda e: wrong.append(str(e)))
        page.set_content("<!doctype html><main></main>")
        page.add_style_tag(content=str(widget._css))
        page.evaluate(
            HARNESS, {"esm": str(widget._esm), "state": widget.get_state(["data", "pictures", "at", "call"])}
        )
        pages.append(page)
        return page

    yield draw
    for page in pages:
        page.close()
    assert wrong == []


def test_scrubbing_shows_the_steps_and_frames_up_to_a_step(seen: Seen, show: Any) -> None:
    page = show(explore(seen.trace, seen.resources.store, finder=seen.resources.finder))
    tiles = page.locator(".tiles > li:visible")
    steps = page.locator(".steps > li:visible")
    slider = page.get_by_role("slider")
    assert (steps.count(), tiles.count()) == (5, len(seen.trace.initial) + 2)
    slider.fill("0")
    assert (steps.count(), tiles.count(), page.evaluate(STATE)) == (1, len(seen.trace.initial), [0, 0, 1])
    assert page.get_by_role("region", name="The chosen call").inner_text() == "Choose a call, or move to one."
    page.get_by_role("button", name="Next step").click()
    assert (steps.count(), tiles.count(), page.evaluate(STATE)) == (2, len(seen.trace.initial) + 1, [1, 1, 2])
    assert slider.get_attribute("aria-valuetext") == "2 of 5: retrieve, call 1"
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate(STATE)[:2] == [2, 2]
    page.locator(".steps button").nth(0).focus()
    for key, at in (("Home", 0), ("ArrowLeft", 0), ("ArrowRight", 1), ("End", 4), ("ArrowRight", 4)):
        page.keyboard.press(key)
        assert page.evaluate(STATE)[0] == at, key
        page.locator(".explorer button:enabled:visible").first.focus()
    page.evaluate("model.set('at', 3)")  # from Python
    assert (slider.input_value(), steps.count()) == ("3", 4)
    assert page.locator("[data-lm-suppress-shortcuts]").count() == 1


def test_a_chosen_call_shows_candidates_and_marks_imagined_frames(seen: Seen, show: Any) -> None:
    page = show(explore(seen.trace, seen.resources.store, finder=seen.resources.finder))
    about = page.get_by_role("region", name="The chosen call")
    first, second, third = page.locator(".steps button").all()
    assert first.get_attribute("aria-pressed") == "true"
    assert about.locator(".candidates > li").count() == explorer.CANDIDATES
    assert "chosen" in about.locator(".candidates .chosen").inner_text()
    assert about.locator("circle.real").count() == 1
    assert about.locator("circle").count() == explorer.CANDIDATES
    second.click()
    assert [b.get_attribute("aria-pressed") for b in (first, second, third)] == ["false", "true", "false"]
    assert page.evaluate(STATE)[:2] == [4, 2]
    imagined = about.locator(".pair .frame .picture")
    assert imagined.get_attribute("aria-label") == "frame 2: imagined, not in the video"
    assert imagined.locator(".badge").inner_text() == "imagined"
    assert imagined.evaluate("e => getComputedStyle(e).outlineStyle") == "dashed"
    assert imagined.evaluate("e => getComputedStyle(e).backgroundImage").startswith('url("data:image/')
    anchor = about.locator(".pair .anchor .picture")
    assert anchor.bounding_box()["x"] + anchor.bounding_box()["width"] <= imagined.bounding_box()["x"]
    assert anchor.locator(".badge").count() == 0
    assert page.locator(".tiles .badge:visible").count() == 1
    third.press("Enter")
    assert "Not run: there is no such tool" in about.inner_text()
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_hostile_text_is_escaped_and_the_trace_can_be_replaced(seen: Seen, show: Any) -> None:
    page = show(explore(hostile(seen.trace), seen.resources.store))
    shown = page.locator(".explorer").inner_text()
    assert shown.count('<img src=x onerror="window.hit=1">') >= 8
    assert page.evaluate("[window.hit ?? 0, document.querySelectorAll('main img, main script').length]") == [
        0,
        0,
    ]
    other = explore(seen.trace, seen.resources.store)
    page.evaluate(
        "s => { for (const k of ['pictures', 'data', 'at']) model.set(k, s[k]); }",
        other.get_state(["data", "pictures", "at"]),
    )
    assert seen.trace.question.text in page.locator(".explorer").inner_text()
    assert "onerror" not in page.locator(".explorer").inner_text()
    page.evaluate("leave(); model.set('at', 0)")
    assert page.locator(".steps > li:visible").count() == 5
