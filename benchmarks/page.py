"""Latency of the web page, and size and load time of a trace's HTML page, in a headless Chromium.

*Latency* is the time from the moment when the reasoner passes a token to the graph until the DOM shows it: a
`MutationObserver` records when each word of a script first appears. Both clocks are those of this machine. A
*first* token is one that follows frames (initial or retrieved); later tokens are buffered for up to 0.1 s.
The script decodes nothing, so the figure covers only the graph, the server and the browser.

*HTML* is the page of a trace of 20 frames: once with footage-like pictures, and once with noise, which
compresses worst. Its load time ends when it is loaded and first painted.
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

from act2see.agent.parser import StopReason
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
from benchmarks.engine import Event, micro_resources

GOAL_TOKEN, GOAL_BYTES, GOAL_OPEN = 0.5, 2_000_000, 1.0
WORDS, EVERY, CALLS = 20, 0.05, 4
# JavaScript that records when each word of the script first appears, in milliseconds since 1970.
WATCH = """() => { window.seen = {}; new MutationObserver(() => {
  const now = performance.timeOrigin + performance.now();
  const words = document.querySelector("#chain").innerText.matchAll(/w\\d+x/g);
  for (const [word] of words) window.seen[word] ??= now;
}).observe(document.querySelector("#chain"), {subtree: true, childList: true, characterData: true}) }"""
# JavaScript that returns the seconds until the page is loaded and painted, or false before that.
OPENED = """() => { const paint = performance.getEntriesByName("first-contentful-paint")[0];
  const load = performance.getEntriesByType("navigation")[0];
  return paint && load.loadEventEnd && Math.max(paint.startTime, load.loadEventEnd) / 1000 }"""


class Speaker(Reasoner):
    """A reasoner that writes numbered words at a steady pace, and a call after every twenty."""

    name = "speaker"

    def __init__(self) -> None:
        self.written: dict[str, float] = {}
        """The time at which each word was written, in seconds since 1970."""
        self.first: list[str] = []
        """The words that follow frames."""

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        calls = len(re.findall("</frame>", str(request.rollout)))
        self.first.append(f"w{len(self.written)}x")
        for _ in range(WORDS):
            word = f"w{len(self.written)}x"
            request.until(f"{word} ")
            self.written[word] = time.time()
            yield Delta(f"{word} ")
            await asyncio.sleep(EVERY)
        last = f"<retrieve>look {calls}</retrieve>" if calls < CALLS else "</think>\n<answer>A</answer>"
        request.until(last)
        yield Delta(last)
        yield Done(StopReason.UNTIL, decoded=WORDS + 1)


def measure_latencies(browser: Any, folder: Path, times: int) -> tuple[list[float], list[float]]:
    """Return the seconds until the page shows each first token, and each later one.

    Args:
        browser: Playwright's Chromium.
        folder: The folder of clips, runs and the cache.
        times: The number of questions to one server, each on a new page.
    """
    from act2see.serve.ui.catalog import CatalogVideo, VideoCatalog
    from act2see.serve.ui.runs import Runs
    from act2see.serve.ui.server import Site, served

    config, resources = micro_resources(folder)
    config = config.model_copy(update={"tools": {"retrieve": config.tools["retrieve"]}})
    speaker = Speaker()
    parts = Parts(speaker, {"retrieve": Event(resources, 1.0)}, resources)
    graph = create_act2see(config, parts=parts)
    sample = CatalogVideo(
        "sample",
        str(write_clip(make_item("blink", 0, "test").clip, folder / "clip.mp4")),
        "Which?",
        ("a", "b"),
    )
    runs = Runs(folder / "runs", lambda _: (graph, resources.store))
    seen: dict[str, float] = {}
    with served(Site({"micro": config}, VideoCatalog(folder / "uploads", [sample]), runs)) as address:
        visitor = browser.new_context()  # caches the page's scripts, as any browser does
        for _ in range(times):
            page = visitor.new_page()
            page.goto(address)
            seen |= ask_sample(page)
            page.close()
        visitor.close()
    latency = {word: seen[word] / 1000 - written for word, written in speaker.written.items()}
    first = [latency[word] for word in speaker.first]
    later = [latency[word] for word in speaker.written if word not in speaker.first]
    return first, later


def ask_sample(page: Any) -> dict[str, float]:
    """Ask the sample's question; return when the page had each word, in milliseconds since 1970.

    Raises:
        RuntimeError: If the page shows an error instead of an answer.
    """
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


def make_trace(pixels: Sequence[np.ndarray]) -> tuple[Trace, dict[str, np.ndarray]]:
    """Return a trace with these pictures, and the pictures by digest.

    The first 16 are initial frames; the others are retrieved one by one. Each is `(height, width, 3)` uint8.
    """
    by_digest = {frame_digest(p): p for p in pixels}
    refs = []
    for second, (digest, picture) in enumerate(by_digest.items()):
        height, width, _ = picture.shape
        refs.append(FrameRef(digest=digest, width=width, height=height, seconds=float(second)))
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
    question = Question(text="Which?")
    trace = Trace(id="t", video=video, question=question, initial=initial, segments=tuple(segments))
    return trace, by_digest


def render_page(trace: Trace, by_digest: dict[str, np.ndarray]) -> str:
    """Return the HTML page of a trace."""
    return trace_html(trace, lambda ref: by_digest[ref.digest])


def draw_pictures(noise: bool) -> list[np.ndarray]:
    """Return 20 pictures of 448 x 252: noise, or smooth surfaces with some grain."""
    from PIL import Image

    rng = np.random.default_rng(0)
    if noise:
        return [rng.integers(0, 256, (252, 448, 3), dtype=np.uint8) for _ in range(20)]
    coarse = [rng.integers(0, 256, (14, 25, 3), dtype=np.uint8) for _ in range(20)]
    out = []
    for colours in coarse:
        smooth = np.asarray(Image.fromarray(colours).resize((448, 252), Image.Resampling.BICUBIC), np.int16)
        grain = rng.normal(0, 6, smooth.shape)
        out.append(np.clip(smooth + grain, 0, 255).astype(np.uint8))
    return out


def time_opening(browser: Any, html: Path, times: int) -> float:
    """Return the median seconds until the file is loaded and painted, each time on a new page."""
    taken = []
    for _ in range(times):
        page = browser.new_page()
        page.goto(html.as_uri())
        taken.append(float(page.wait_for_function(OPENED).json_value()))
        page.close()
    return statistics.median(taken)


def run(quick: bool = False) -> dict[str, Any]:
    """Measure three runs of 100 words (quick: one), and five loads of each file (quick: two).

    Raises:
        Skipped: If Gradio, Playwright or Chromium is missing.
    """
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    try:
        import gradio  # noqa: F401
        from playwright.sync_api import sync_playwright
    except ImportError as e:
        raise Skipped(f"it needs Gradio and Playwright: pip install -e '.[dev]' ({e})") from e
    if chromium is None:
        raise Skipped("it needs Chromium or Chrome on the PATH")
    goals: dict[str, Goal] = {}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        first, later = measure_latencies(browser, Path(folder), 1 if quick else 3)
        goals["seconds from a first token to the page, the slowest"] = at_most(max(first), GOAL_TOKEN)
        goals["seconds from a first token to the page, the median"] = reported(statistics.median(first))
        goals["seconds from a later token to the page, the median"] = reported(statistics.median(later))
        goals["seconds from a later token to the page, the slowest"] = reported(max(later))
        for kind in ("footage", "noise"):
            trace, by_digest = make_trace(draw_pictures(kind == "noise"))
            html = Path(folder) / f"{kind}.html"
            html.write_text(render_page(trace, by_digest), encoding="utf-8")
            goals[f"bytes of the page of 20 frames, {kind}"] = at_most(html.stat().st_size, GOAL_BYTES)
            goals[f"seconds until it is loaded and painted, {kind}"] = at_most(
                time_opening(browser, html, 2 if quick else 5), GOAL_OPEN
            )
        browser.close()
    return {"first": [round(x, 3) for x in first], "goals": goals}
