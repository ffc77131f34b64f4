"""The page in headless Chromium, with micro and scripted models, by mouse, by keyboard, and on a phone."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.graphs.doubles import Scripted, clip_in, parts_in

from act2see.agent.parser import StopReason
from act2see.agent.reasoners.base import Delta, Done, Request
from act2see.cli.demo import item_shown
from act2see.graphs.ask import create_act2see
from act2see.graphs.config import Config, load_config
from act2see.graphs.parts import cached_parts
from act2see.micro.world import write_clip
from act2see.serve.ui.catalog import CatalogVideo, VideoCatalog
from act2see.serve.ui.runs import Runs
from act2see.serve.ui.server import Site, served
from act2see.trace.trace import Trace

pytest.importorskip("gradio", reason="the page needs Gradio: pip install 'act2see[ui]'")
sync_api = pytest.importorskip("playwright.sync_api", reason="driving a browser needs playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium or Chrome on the PATH"),
    pytest.mark.timeout(300),  # a page, a server and models, on two shared cores
]
IMG = '<img src=x onerror="window.hit=1">'
HOSTILE = f"{IMG}<script>window.hit=1;//${{window.hit=1}}{{{{hit}}}}"
SCRIPT = (f"{HOSTILE}<retrieve>{HOSTILE}</retrieve>", f"{HOSTILE}</think><answer>{HOSTILE}</answer>")
WAIT = 120_000  # milliseconds
CALLS = {"micro": 4, "away": 5, "scripted": 6, "slow": 7}  # budgets of the configurations, all different


class Slow(Scripted):
    """Writes words slowly until it is stopped."""

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        for n in range(10_000):
            yield Delta(f"word{n} ")
            await asyncio.sleep(0.02)
        yield Done(StopReason.EOS)


@dataclass
class Visit:
    """A browser that records its requests to other hosts, and the errors of its pages."""

    address: str
    context: Any  # shared by all pages, so that scripts are cached
    folder: Path
    elsewhere: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def open(self, **viewport: int) -> Any:
        page = self.context.new_page()
        page.set_viewport_size(viewport or {"width": 1280, "height": 900})
        page.on(
            "request",
            lambda r: (
                None if r.url.startswith((self.address, "data:", "blob:")) else self.elsewhere.append(r.url)
            ),
        )
        page.on("pageerror", lambda e: self.errors.append(str(e)))
        page.goto(self.address)
        return page

    def open_ready(self, **viewport: int) -> Any:
        page = self.open(**viewport)
        wait_until_ready(page)
        return page


def wait_until_ready(page: Any) -> None:
    """Wait until the server has answered and the controls are enabled."""
    page.locator("body[data-ready]").wait_for()


def ask_button(page: Any) -> Any:
    return page.get_by_role("button", name="Ask", exact=True)


def choose_option(page: Any, label: str, option: str) -> None:
    page.get_by_role("combobox", name=label).click()
    page.get_by_role("option", name=option).click()


def write_noise_video(path: Path, seed: int = 0) -> str:
    """Write a video that does not show a board, and return its path."""
    import av
    import numpy as np

    rng = np.random.default_rng(seed)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=12)
        stream.width, stream.height, stream.pix_fmt = 96, 96, "yuv420p"
        for _ in range(24):
            frame = av.VideoFrame.from_ndarray(
                rng.integers(0, 255, (96, 96, 3), dtype=np.uint8), format="rgb24"
            )
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return str(path)


def choose_configuration(page: Any, name: str, opened: bool = False) -> None:
    """Choose a configuration and wait until the server has sent its budget."""
    if not opened:
        page.get_by_role("button", name="Tools, budget").click()
    choose_option(page, "Configuration", name)
    sync_api.expect(page.get_by_label("Maximum calls")).to_have_value(str(CALLS[name]))


def wait_for_message(page: Any, text: str) -> Any:
    """Wait for this text in a line that screen readers announce."""
    line = page.locator("[role=status], [role=alert]").filter(has_text=text).first
    line.wait_for()
    return line


def assert_right_below(page: Any, message: str, control: str) -> None:
    box, below = page.locator(control).bounding_box(), page.locator(message).bounding_box()
    assert box["y"] < below["y"] <= box["y"] + box["height"] + 40


@pytest.fixture(scope="module")
def visit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    folder = tmp_path_factory.mktemp("page")
    micro = load_config("micro")
    scripted, parts = parts_in(folder / "scripted", Scripted(*SCRIPT))
    _, slow = parts_in(folder / "slow", Slow())
    made = {"scripted": parts, "slow": slow}
    away = load_config("micro", reasoner={"weights": "./not/here"})
    configs = {"micro": micro, "away": away, "scripted": scripted, "slow": scripted}
    for name, config in configs.items():
        budget = config.budget.model_copy(update={"calls": CALLS[name]})
        configs[name] = config.model_copy(update={"name": name, "budget": budget})

    def open_graph(config: Config) -> Any:
        chosen = made.get(config.name) or cached_parts(config)
        return create_act2see(config, parts=chosen), chosen.resources.store

    item = item_shown("imagine")
    sample = CatalogVideo(
        "sample: imagine", str(write_clip(item.clip, folder / "imagine.mp4")), item.text, tuple(item.options)
    )
    runs = Runs(folder / "runs", open_graph)
    with (
        sync_api.sync_playwright() as playwright,
        served(Site(configs, VideoCatalog(folder / "uploads", [sample]), runs, max_upload=1)) as address,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(locale="en-US")
        context.set_default_timeout(WAIT)
        sync_api.expect.set_options(timeout=WAIT)
        yield Visit(address, context, folder)
        sync_api.expect.set_options(timeout=5_000)
        context.close()
        browser.close()


def test_an_answer_is_streamed_with_marked_frames_and_kept_after_a_reload(visit: Visit) -> None:
    page = visit.open_ready()
    page.evaluate(
        """() => {
          const chain = document.querySelector("#chain");
          window.looks = new Set();
          new MutationObserver(() => looks.add(chain.innerText.length))
            .observe(chain, {subtree: true, childList: true, characterData: true});
        }"""
    )
    page.get_by_label("Question").press("Enter")
    item = item_shown("imagine")
    assert item.answer in wait_for_message(page, "Answered").inner_text()
    assert page.evaluate("window.looks.size") >= 5
    imagined = page.locator("#chain .picture.imagined")
    assert imagined.locator(".badge").inner_text() == "imagined"
    assert imagined.evaluate("e => getComputedStyle(e).outlineStyle") == "dashed"
    assert imagined.evaluate("e => getComputedStyle(e).backgroundImage").startswith('url("data:image/png')
    assert imagined.get_attribute("aria-label") == "frame 1: imagined, not in the video"
    href = page.get_by_role("link", name="Download the trace (JSON)").get_attribute("href")
    trace = Trace.from_json(page.request.get(visit.address + href).text())
    assert trace.choice == item.answer
    page.reload()
    page.get_by_role("tab", name="Past runs").click()
    past = page.get_by_role("combobox", name="Run (newest first)")
    sync_api.expect(past).to_have_value(re.compile(re.escape(item.text[:40])))
    page.locator("#past-chain .picture.imagined").wait_for()
    page.close()


def test_controls_are_disabled_until_the_server_has_answered_the_page(visit: Visit) -> None:
    held: list[Any] = []
    visit.context.route("**/queue/join*", lambda route: held.append(route))
    page = visit.open()
    page.get_by_role("button", name="Tools, budget").click()
    controls = [
        ask_button(page),
        page.get_by_role("combobox", name="Video"),
        *(page.get_by_label(label) for label in ("Question", "Options")),
        *(page.get_by_label(label) for label in ("Configuration", "Maximum calls", "Maximum tokens", "Seed")),
        *(page.get_by_role("checkbox", name=tool) for tool in ("retrieve", "generate")),
        *(page.get_by_role("tab", name=tab) for tab in ("Past runs", "Compare")),
    ]
    for control in controls:
        sync_api.expect(control).to_be_disabled()
    assert page.locator("input[type=file]").count() == 0
    assert page.locator("body[data-ready]").count() == 0
    for route in held:
        route.continue_()
    visit.context.unroute("**/queue/join*")
    wait_until_ready(page)
    for control in controls:
        sync_api.expect(control).to_be_enabled()
    assert page.locator("#upload input[type=file]").count() == 1
    page.close()


def test_controls_are_disabled_while_the_connection_is_lost_and_enabled_when_it_is_back(visit: Visit) -> None:
    page = visit.open_ready()
    page.route("**/gradio_api/**", lambda route: route.abort())
    page.get_by_label("Question").press("Enter")
    page.locator("body:not([data-ready])").wait_for()
    assert page.locator("main").evaluate("main => main.inert")
    page.unroute("**/gradio_api/**")
    wait_until_ready(page)
    choose_configuration(page, "scripted")
    ask_button(page).click()
    wait_for_message(page, "Answered")
    page.close()


def test_an_empty_page_says_what_to_do(visit: Visit) -> None:
    page = visit.open_ready()
    assert "Pick a video" in page.locator("#chain").inner_text()
    page.get_by_role("tab", name="Compare").click()
    page.get_by_text("Ask twice").locator("visible=true").wait_for()
    page.close()


def test_an_uploaded_video_has_no_question_and_micro_refuses_it(visit: Visit) -> None:
    page = visit.open_ready()
    question, options = page.get_by_label("Question"), page.get_by_label("Options")
    assert options.input_value()
    page.locator("#upload input[type=file]").set_input_files(write_noise_video(visit.folder / "noise.mp4"))
    wait_for_message(page, "It is now selected")
    sync_api.expect(options).to_have_value("")
    sync_api.expect(question).to_have_value("")
    question.fill("What is this?")
    options.fill("a\nb")
    page.locator("#upload input[type=file]").set_input_files(
        write_noise_video(visit.folder / "again.mp4", seed=1)
    )
    sync_api.expect(page.get_by_role("combobox", name="Video")).to_have_value("upload: again.mp4")
    page.locator("video[aria-label*=again]").wait_for()
    # The user's own text stays.
    assert (question.input_value(), options.input_value()) == ("What is this?", "a\nb")
    question.press("Enter")
    wait_for_message(page, "Not answered: I cannot tell")
    for absent in ("budget", "Forced", "Chain of thought", "none of the options"):
        assert absent not in page.locator("#answering").inner_text()
    page.close()


def test_answers_and_errors_scroll_into_view_on_a_phone(visit: Visit) -> None:
    page = visit.open_ready(width=390, height=844)
    choose_configuration(page, "scripted")
    ask_button(page).click()
    assert 0 <= wait_for_message(page, "Answered").bounding_box()["y"] < 200
    choose_configuration(page, "away", opened=True)
    ask_button(page).click()
    alert = wait_for_message(page, "there is no weight folder")
    sync_api.expect(alert).to_be_in_viewport()
    page.close()


def test_errors_are_readable_and_the_form_keeps_its_values(visit: Visit) -> None:
    page = visit.open_ready()
    question = page.get_by_label("Question")
    question.fill("   ")
    ask_button(page).click()
    assert wait_for_message(page, "question is empty").get_attribute("role") == "alert"
    assert_right_below(page, "#message", "#ask-button")
    page.locator("#upload input[type=file]").set_input_files(
        {"name": "no <b>video.mp4", "mimeType": "video/mp4", "buffer": b"only words"}
    )
    assert "is not a video that can be read" in wait_for_message(page, "not a video").inner_text()
    assert_right_below(page, "#upload-message", "#upload")
    page.locator("#upload input[type=file]").set_input_files(
        {"name": f"big{HOSTILE}.mp4", "mimeType": "video/mp4", "buffer": bytes(1_100_000)}
    )
    page.get_by_text(re.compile("exceed the maximum allowed size")).first.wait_for()
    # If the name had become a picture in the page, that picture would fail to load before this one.
    page.evaluate("new Promise((failed) => Object.assign(new Image(), {onerror: failed, src: 'x'}))")
    assert page.evaluate("window.hit") is None
    question.fill("What is it?")
    choose_configuration(page, "away")
    ask_button(page).click()
    assert wait_for_message(page, "there is no weight folder").get_attribute("role") == "alert"
    assert_right_below(page, "#message", "#ask-button")
    assert question.input_value() == "What is it?"
    sync_api.expect(ask_button(page)).to_be_enabled()
    page.close()


def test_text_of_users_and_models_is_escaped(visit: Visit) -> None:
    page = visit.open_ready()
    video = Path(clip_in(visit.folder)).read_bytes()
    name = """"><img src=x onerror="window.hit=1">..#t=1,2.mp4"""
    page.locator("#upload input[type=file]").set_input_files(
        {"name": name, "mimeType": "video/mp4", "buffer": video}
    )
    wait_for_message(page, "It is now selected")
    sync_api.expect(page.get_by_label("Options")).to_have_value("")  # the sample's options are removed
    choose_configuration(page, "scripted")
    page.get_by_label("Question").fill(HOSTILE)
    page.get_by_label("Options").fill(f"{HOSTILE}\n{HOSTILE}2")
    ask_button(page).click()
    wait_for_message(page, "Answered")
    shown = page.locator("#chain").inner_text()
    assert shown.count(HOSTILE) == 7  # question, two options, thought, query, thought, answer
    assert page.locator("#chain img, #chain script").count() == 0
    page.get_by_role("tab", name="Past runs").click()
    page.locator("#past-chain article").wait_for()
    page.get_by_role("combobox", name="Run (newest first)").click()
    page.get_by_role("option").first.wait_for()
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Open the page").locator("visible=true").click()
    static = opened.value
    static.get_by_role("heading", level=1).wait_for()
    assert HOSTILE in static.get_by_role("heading", level=1).inner_text()
    for each in (page, static):
        assert each.evaluate("window.hit") is None
        each.close()


def test_the_keyboard_alone_is_enough_on_a_phone(visit: Visit) -> None:
    page = visit.open_ready(width=390, height=844)
    reached: list[str] = []
    for _ in range(20):
        page.keyboard.press("Tab")
        focus = page.evaluate("document.activeElement.closest('[id]')?.id")
        if focus in ("upload", "clip", "question", "options", "ask-button") and focus not in reached:
            reached.append(focus)
        if focus == "question":
            page.keyboard.press("Control+A")
            page.keyboard.type("Which?")
    assert reached == ["upload", "clip", "question", "options", "ask-button"]
    choose_configuration(page, "scripted")
    page.get_by_label("Question").focus()
    page.keyboard.press("Enter")
    wait_for_message(page, "Answered")
    for tab, control in (("Ask", "#ask-button"), ("Past runs", "#past"), ("Compare", "#run-b")):
        page.get_by_role("tab", name=tab).click()
        box = page.locator(control).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
        if tab != "Ask":
            page.locator("#past-chain article, #comparison table, #comparison p").locator(
                "visible=true"
            ).first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, tab
    page.close()


def test_a_stopped_run_is_saved_and_two_runs_are_compared(visit: Visit) -> None:
    page = visit.open_ready()
    choose_configuration(page, "slow")
    for tools in (True, False):
        if not tools:
            page.get_by_role("checkbox", name="retrieve").uncheck()
            page.get_by_role("checkbox", name="generate").uncheck()
        ask_button(page).click()
        stop = page.get_by_role("button", name="Stop")
        sync_api.expect(stop).to_be_enabled()  # the page shows this run, not the last one
        page.locator("#chain").get_by_text("word3").wait_for()
        stop.click()
        wait_for_message(page, "Stopped. The run so far was saved.")
        sync_api.expect(ask_button(page)).to_be_enabled()
    page.get_by_role("tab", name="Compare").click()
    page.locator("#comparison .a2s-column article").nth(1).wait_for()
    left, right = (c.bounding_box() for c in page.locator("#comparison .a2s-column").all())
    assert left["x"] + left["width"] <= right["x"]
    sync_api.expect(page.locator("#comparison table")).to_contain_text("Configuration")
    page.close()


def test_pages_sent_no_requests_to_other_hosts_and_had_no_errors(visit: Visit) -> None:
    assert visit.elsewhere == []
    assert visit.errors == []
