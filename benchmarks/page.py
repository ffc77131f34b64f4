"""How soon the web page shows what the model wrote, and how heavy the page of a trace is, in a headless
Chromium.

*Latency* is from the moment at which the reasoner hands a token to the graph to the moment at which the DOM has it: a
`MutationObserver` notes when each word of a script is first there. Both clocks are this machine's. A *first* token is one
that follows frames (the initial view, or a retrieved one); the others are gathered for up to 0.1 s. Nothing decodes here
but the script, so what is measured is the graph, the server and the browser.

*HTML* is a trace of 20 frames: once of pictures as footage has them, once of noise, which no picture is and which
compresses worst. It opens when it is loaded and painted for the first time.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from act2see.agent.grammar import StopReason
from act2see.agent.reasoners.base import Delta, Done, Reasoner, Request
from act2see.graphs.ask import create_act2see
from act2see.graphs.parts import Parts
from act2see.micro.questions import make_item
from act2see.micro.world import write_clip
from act2see.tools.frames import FrameRef, Initial, Retrieved
from act2see.tools.video.store import frame_digest
from act2see.trace.page import trace_html
from act2see.trace.record import Answer, Call, Frames, Question, Segment, Text, Video
from act2see.trace.trace import Trace
from benchmarks import Goal, Skipped, at_most, reported
from benchmarks.engine import Event, house

GOAL_TOKEN, GOAL_BYTES, GOAL_OPEN = 0.5, 2_000_000, 1.0
WORDS, EVERY, CALLS = 20, 0.05, 4
# Word N of the script, when it is first in the chain: milliseconds since 1970, in parts of one.
WATCH = """() => { window.seen = {}; new MutationObserver(() => {
  const now = performance.timeOrigin + performance.now();
  for (const [word] of document.querySelector("#chain").innerText.matchAll(/w\\d+x/g)) window.seen[word] ??= now;
}).observe(document.querySelector("#chain"), {subtree: true, childList: true, characterData: true}) }"""
OPENED = """() => { const paint = performance.getEntriesByName("first-contentful-paint")[0];
  const load = performance.getEntriesByType("navigation")[0];
  return paint && load.loadEventEnd && Math.max(paint.startTime, load.loadEventEnd) / 1000 }"""


class Speaker(Reasoner):
    """Says numbered words at a steady pace, calls after each twenty of them, and knows when it said what."""

    name = "speaker"

    def __init__(self) -> None:
        self.said: dict[str, float] = {}
        self.first: list[str] = []

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        calls = len(re.findall("</frame>", str(request.rollout)))
        self.first.append(f"w{len(self.said)}x")
        for _ in range(WORDS):
            word = f"w{len(self.said)}x"
            request.until(f"{word} ")
            self.said[word] = time.time()
            yield Delta(f"{word} ")
            await asyncio.sleep(EVERY)
        last = f"<retrieve>look {calls}</retrieve>" if calls < CALLS else "</think>\n<answer>A</answer>"
        request.until(last)
        yield Delta(last)
        yield Done(StopReason.UNTIL, decoded=WORDS + 1)


def latencies(browser: Any, folder: Path, times: int) -> tuple[list[float], list[float]]:
    """Seconds to the page of each first token, and of the others: so many questions to one server, each on a
    page of its own."""
    from act2see.serve.ui.runs import Runs
    from act2see.serve.ui.server import Site, served
    from act2see.serve.ui.shelf import Clip, VideoCatalog

    config, resources = house(folder)
    config = config.model_copy(update={"tools": {"retrieve": config.tools["retrieve"]}})
    speaker = Speaker()
    parts = Parts(speaker, {"retrieve": Event(resources, 1.0)}, resources)
    graph = create_act2see(config, parts=parts)
    sample = Clip(
        "sample",
        str(write_clip(make_item("blink", 0, "test").clip, folder / "clip.mp4")),
        "Which?",
        ("a", "b"),
    )
    runs = Runs(folder / "runs", lambda _: (graph, resources.store))
    seen: dict[str, float] = {}
    with served(Site({"micro": config}, VideoCatalog(folder / "uploads", [sample]), runs)) as address:
        visitor = browser.new_context()  # it keeps the page's scripts, as any browser does
        for _ in range(times):
            page = visitor.new_page()
            page.goto(address)
            seen |= asked(page)
            page.close()
        visitor.close()
    late = {word: seen[word] / 1000 - at for word, at in speaker.said.items()}
    return [late[w] for w in speaker.first], [late[w] for w in speaker.said if w not in speaker.first]


def asked(page: Any) -> dict[str, float]:
    """Ask the sample's question: when the page had each word. Raises `RuntimeError` with the page's words
    where it does not answer."""
    page.locator("body[data-ready]").wait_for()
    page.evaluate(WATCH)
    page.get_by_label("Question").press("Enter")
    answered = page.locator("[role=status]", has_text="Answered")
    failed = page.locator("[role=alert]").or_(page.locator("[role=status]", has_text="Stopped"))
    answered.or_(failed).first.wait_for(timeout=120_000)
    if not answered.count():
        raise RuntimeError(f"the page did not answer: {failed.first.inner_text()}")
    seen: dict[str, float] = page.evaluate("window.seen")
    return seen


def trace_of(pixels: Sequence[np.ndarray]) -> tuple[Trace, dict[str, np.ndarray]]:
    """A trace that shows these pictures: 16 at the start, the rest retrieved one by one."""
    by_digest = {frame_digest(p): p for p in pixels}
    refs = [
        FrameRef(digest=d, width=p.shape[1], height=p.shape[0], seconds=float(i))
        for i, (d, p) in enumerate(by_digest.items())
    ]
    segments: list[Segment] = []
    for n, ref in enumerate(refs[16:]):
        found = ref.model_copy(update={"provenance": Retrieved(query=f"look {n}", score=0.5)})
        segments += [
            Text(text="I look again. " * 20),
            Call(text="", tag="retrieve", query=f"look {n}"),
            Frames(tag="retrieve", frames=(found,)),
        ]
    segments.append(Answer(text="<answer>A</answer>", body="A"))
    video = Video(path="clip.mp4", digest="0", seconds=20.0, width=448, height=252, frames=500, fps=25.0)
    initial = tuple(r.model_copy(update={"provenance": Initial()}) for r in refs[:16])
    return Trace(
        id="t", video=video, question=Question(text="Which?"), initial=initial, segments=tuple(segments)
    ), by_digest


def pictures(noise: bool) -> list[np.ndarray]:
    """20 of 448 x 252: noise, or smooth surfaces with some grain."""
    from PIL import Image

    rng = np.random.default_rng(0)
    if noise:
        return [rng.integers(0, 256, (252, 448, 3), dtype=np.uint8) for _ in range(20)]
    smooth = [rng.integers(0, 256, (14, 25, 3), dtype=np.uint8) for _ in range(20)]
    large = [
        np.asarray(Image.fromarray(s).resize((448, 252), Image.Resampling.BICUBIC), np.int16) for s in smooth
    ]
    return [np.clip(a + rng.normal(0, 6, a.shape), 0, 255).astype(np.uint8) for a in large]


def opened(browser: Any, html: Path, times: int) -> float:
    """Seconds until the file is loaded and painted, each time in a browser context of its own: the median."""
    taken = []
    for _ in range(times):
        page = browser.new_page()
        page.goto(html.as_uri())
        taken.append(float(page.wait_for_function(OPENED).json_value()))
        page.close()
    return statistics.median(taken)


def run(quick: bool = False) -> dict[str, Any]:
    """Three runs of 100 words (quick: one), each file opened five times (quick: two)."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    try:
        import gradio  # noqa: F401
        from playwright.sync_api import sync_playwright
    except ImportError as e:
        raise Skipped(f"it needs Gradio and Playwright: pip install -e '.[dev]' ({e})") from e
    if chromium is None:
        raise Skipped("there is no Chromium or Chrome on the PATH")
    goals: dict[str, Goal] = {}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        first, later = latencies(browser, Path(folder), 1 if quick else 3)
        goals["seconds from a first token to the page, the slowest"] = at_most(max(first), GOAL_TOKEN)
        goals["seconds from a first token to the page, the median"] = reported(statistics.median(first))
        goals["seconds from a later token to the page, the median"] = reported(statistics.median(later))
        goals["seconds from a later token to the page, the slowest"] = reported(max(later))
        for kind in ("footage", "noise"):
            trace, by_digest = trace_of(pictures(kind == "noise"))
            html = Path(folder) / f"{kind}.html"
            html.write_text(
                trace_html(trace, lambda ref, known=by_digest: known[ref.digest]), encoding="utf-8"
            )
            goals[f"bytes of the page of 20 frames, {kind}"] = at_most(html.stat().st_size, GOAL_BYTES)
            goals[f"seconds until it is loaded and painted, {kind}"] = at_most(
                opened(browser, html, 2 if quick else 5), GOAL_OPEN
            )
        browser.close()
    return {"first": [round(x, 3) for x in first], "goals": goals}
