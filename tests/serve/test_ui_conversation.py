"""The conversation of an open page: a question follows those before it about the same video."""

from __future__ import annotations

import html
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.graphs.doubles import BOARD, Scripted, clip_in
from tests.serve.page_runs import runs_in

from act2see.micro.world import Clip, write_clip
from act2see.serve.ui.catalog import CatalogVideo, VideoCatalog
from act2see.serve.ui.page import conversation
from act2see.serve.ui.runs import Runs
from act2see.serve.ui.server import Site
from act2see.trace.record import Turn
from act2see.trace.trace import Trace

pytest.importorskip("gradio", reason="the page needs Gradio: pip install 'act2see[ui]'")
from tests.serve.page_client import Client, page_client

CIRCLE, RING, SQUARE = "What colour is the circle?", "And the ring?", "And the square?"


class Page:
    """An open page with two videos, whose model always answers "red"."""

    def __init__(self, client: Client, runs: Runs, clips: tuple[CatalogVideo, CatalogVideo]) -> None:
        self.client, self.runs, self.clips = client, runs, clips
        self.known: set[str] = set()

    def ask(self, question: str, clip: int = 0) -> Trace:
        """Ask as the page does: the event that asks, then the event at its end. Return the run's trace."""
        inputs = ("clip", "question", "options", "config", "tools", "calls", "tokens", "seed")
        form = [self.clips[clip].key, question, "", "mine", [], 4, 600, 0]
        assert "Answered" in self.client.outcome(self.client.function(*inputs), [None, None, *form])
        [id] = {run.id for run in self.runs.list_runs()} - self.known
        self.known.add(id)
        return self.runs.load(id)

    def end(self, clip: int = 0) -> str:
        """Send the event at the end of a question, and return what it shows."""
        [event] = [e for e in self.client.config["dependencies"] if self.is_end(e)]
        return self.client.outcome(event["id"], [None, None, self.clips[clip].key])

    def is_end(self, event: Any) -> bool:
        return self.names(event["inputs"]) == ["clip"] and "afresh-button" in self.names(event["outputs"])

    def names(self, ids: list[int]) -> list[str]:
        named = {c["id"]: c["props"].get("elem_id") for c in self.client.config["components"]}
        return [named[id] for id in ids if named.get(id)]

    def start_afresh(self) -> str:
        [event] = [
            e
            for e in self.client.config["dependencies"]
            if e["backend_fn"] and self.names([t[0] for t in e["targets"]]) == ["afresh-button"]
        ]
        return self.client.outcome(event["id"], [])

    def select(self, clip: int) -> None:
        event = self.client.function("clip", "question")
        self.client.outcome(event, [self.clips[clip].key, None, None, ""])


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    config, runs = runs_in(tmp_path, Scripted("<answer>red</answer>"))
    other = str(write_clip(Clip(24, ((0, BOARD.without("ring")),)), tmp_path / "other.mp4"))
    clips = CatalogVideo("one", clip_in(tmp_path)), CatalogVideo("two", other)
    with page_client(Site({"mine": config}, VideoCatalog(tmp_path / "uploads", clips), runs)) as client:
        yield Page(client, runs, clips)


def turns(trace: Trace) -> list[tuple[str, str]]:
    return [(turn.question, turn.answer) for turn in trace.question.earlier]


def test_a_follow_up_is_told_of_the_question_before(page: Page) -> None:
    assert turns(page.ask(CIRCLE)) == []
    shown = html.unescape(page.end())
    assert "The next question follows:" in shown
    assert CIRCLE in shown
    assert turns(page.ask(RING)) == [(CIRCLE, "red")]
    assert turns(page.ask(SQUARE)) == [(CIRCLE, "red"), (RING, "red")]


def test_a_new_conversation_and_another_video_start_afresh(page: Page) -> None:
    page.ask(CIRCLE)
    assert "The next question starts a new conversation." in page.start_afresh()
    assert turns(page.ask(RING)) == []
    assert turns(page.ask(SQUARE)) == [(RING, "red")]
    assert turns(page.ask(CIRCLE, clip=1)) == []
    assert "The next question follows" not in page.end(clip=0)  # the first clip is selected again
    page.select(0)
    assert turns(page.ask(RING, clip=1)) == []


def test_the_turns_are_listed_as_plain_text() -> None:
    shown = conversation((Turn(question="<b>What?</b>", answer="<i>red</i>"),))
    assert "&lt;b&gt;What?&lt;/b&gt;" in shown
    assert "<b>" not in shown
    assert "<i>" not in shown
    assert 'aria-label="Asked before"' in shown
    assert conversation(()) == ""
