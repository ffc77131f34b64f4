"""The overview page of several traces."""

from __future__ import annotations

import pytest
from tests.trace.page_parts import HOSTILE, Page, Store, both, make

from act2see.trace.overview import Entry, index_html
from act2see.trace.record import Answer, Question, Turn


@pytest.fixture
def store() -> Store:
    return Store()


def test_the_overview_shows_frames_of_each_trace_and_marks_imagined_ones(store: Store) -> None:
    plain = make(store, Answer(text="<answer>B</answer>", body="B"))
    entries = [
        Entry(both(store), "both.html", "right"),
        Entry(plain, "plain.html"),
        Entry(make(store), "none.html", HOSTILE),
    ]
    html = index_html("all", "about", entries, store)
    page = Page(html)
    assert [a["href"] for tag, a in page.tags if tag == "a"] == ["both.html", "plain.html", "none.html"]
    labels = [a["aria-label"] for _, a in page.tags if a.get("role") == "img"]
    kinds = [label.split(": ")[1].split(",")[0] for label in labels]
    assert kinds == ["real", "imagined", "real", "real"]
    assert html.count('class="badge"') == 1
    assert "<script" not in html
    assert "no answer" in page.text


def test_the_overview_shows_earlier_turns(store: Store) -> None:
    asked = Question(text="And the ring?", earlier=(Turn(question="Which is red?", answer="the circle"),))
    html = index_html("all", "about", [Entry(make(store, question=asked), "a.html")], store)
    assert "Which is red? the circle" in Page(html).text
