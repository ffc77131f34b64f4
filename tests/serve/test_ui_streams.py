"""The page's event streams and its first answer, over raw HTTP: no event is lost when a stream ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.graphs.doubles import Scripted, clip_in
from tests.serve.page_runs import SCRIPT, runs_in

from act2see.serve.ui import streams
from act2see.serve.ui.catalog import CatalogVideo, VideoCatalog
from act2see.serve.ui.server import Site

pytest.importorskip("gradio", reason="the page needs Gradio: pip install 'act2see[ui]'")
from tests.serve.page_client import SESSION, Client, page_client

FORM = ("clip", "question", "options", "config", "tools", "calls", "tokens", "seed")


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Client]:
    config, runs = runs_in(tmp_path, Scripted(*SCRIPT))
    sample = CatalogVideo("sample", clip_in(tmp_path), "Which?", ("a", "b"))
    with page_client(Site({"mine": config}, VideoCatalog(tmp_path / "uploads", [sample]), runs)) as client:
        yield client


def stream_until(page: Client, message: str) -> Iterator[None]:
    """Read the session's stream until this message. Disconnect when the caller resumes the generator."""
    with page.http.stream("GET", "/gradio_api/queue/data", params={"session_hash": SESSION}) as stream:
        for line in stream.iter_lines():
            if f'"msg":"{message}"' in line:
                yield
                return
    raise AssertionError(f"the stream ended without {message}")


def test_an_event_is_accepted_after_the_page_disconnects_from_the_closing_stream(
    page: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "DISCONNECT", 60)
    video = next(
        c["props"]["value"] for c in page.config["components"] if c["props"].get("elem_id") == "clip"
    )
    form = [None, None, video, "Which?", "a\nb", "mine", [], 4, 600, 0]
    assert page.join(page.function("config"), ["mine"]).status_code == 200
    closing = stream_until(page, "close_stream")
    next(closing)
    with ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(page.join, page.function(*FORM), form)
        while not list((tmp_path / "runs").glob("*/trace.json")):  # the event arrived, and its run has ended
            assert not accepted.done()
            time.sleep(0.01)
        closing.close()
        assert accepted.result().status_code == 200
    results = list(stream_until(page, "process_completed"))
    assert results == [None]


def test_a_client_that_does_not_disconnect_is_still_served(
    page: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "DISCONNECT", 0.01)
    for _ in range(2):
        assert page.join(page.function("config"), ["mine"]).status_code == 200
        whole = page.http.get("/gradio_api/queue/data", params={"session_hash": SESSION}).text
        assert '"msg":"process_completed"' in whole
        assert '"msg":"close_stream"' in whole


def test_controls_are_served_disabled_and_enabled_by_the_first_answer(page: Client) -> None:
    names = [*FORM, "upload", "ask-button"]
    controls = {c["props"].get("elem_id"): c["props"] for c in page.config["components"]}
    assert [controls[name]["interactive"] for name in names] == [False] * len(names)
    tabs = [c["props"] for c in page.config["components"] if c["type"] == "tabitem"]
    assert [(tab["label"], tab["interactive"]) for tab in tabs] == [
        ("Ask", True),
        ("Past runs", False),
        ("Compare", False),
    ]
    assert page.outcome(page.load(), []).count('"interactive":true') == len(names) + 2
