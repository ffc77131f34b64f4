"""The page of a trace is complete, safe and small, and marks imagined frames."""

from __future__ import annotations

import base64
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tests.trace.page_parts import BOARD, HOSTILE, Page, Pixels, Store, both, curve, make, retrieved

from act2see.micro.world import render
from act2see.tools.frames import FrameRef, Generated, Retrieved
from act2see.trace.page import find_html, trace_html
from act2see.trace.record import (
    OUTCOMES,
    Answer,
    Call,
    Frames,
    Loop,
    Question,
    Text,
    Turn,
    Usage,
    Versions,
    Video,
)
from act2see.trace.trace import Trace


@pytest.fixture
def store() -> Store:
    return Store()


def test_the_page_follows_the_trace_in_order(store: Store) -> None:
    page = Page(trace_html(both(store), store))
    text = page.text
    head = ["board.mp4", "6.0 s", "192", "What colour", "red", "green", "chosen"]
    retrieval = ["No ring blinks", "retrieve", "2.7 s", "score 0.43"]
    generation = ["Now the board is tipped", "generate", "not in the video"]
    generation += ["faithfulness 0.31, anchor 0.35: no closer", "the best of 2 (0.20, 0.31)", "seed 11"]
    answer = ["So it is green.", "Answer", "B"]
    cost = ["prefilled", "</retrieve>", "884", "0.92", "micro-vlm", "b1946", "seed"]
    at = 0
    for words in (*head, *retrieval, *generation, *answer, *cost):
        assert words in text[at:], words
        at = text.index(words, at)
    assert "/videos/someone" not in text
    assert [tag for tag, _ in page.tags].count("h1") == 1
    chosen = [a for tag, a in page.tags if tag == "li" and a.get("class") == "chosen"]
    assert len(chosen) == 1


def test_the_page_is_self_contained(store: Store) -> None:
    html = trace_html(both(store), store)
    page = Page(html)
    assert not re.search(r"https?:|//\w|@import|@font-face", re.sub(r"base64,[\w+/=]+", "", html))
    assert {tag for tag, _ in page.tags}.isdisjoint(
        {"script", "link", "iframe", "object", "base", "form", "img"}
    )
    assert all(u.startswith("data:image/") for u in re.findall(r"url\(([^)]*)", page.css))
    assert all(a["href"].startswith("#frame-") for _, a in page.tags if "href" in a)
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert {a["href"][1:] for _, a in page.tags if "href" in a} == set(ids)
    assert len(ids) == len(set(ids))
    assert any(a.get("name") == "viewport" for tag, a in page.tags if tag == "meta")
    assert "prefers-color-scheme: dark" in page.css


def test_each_picture_is_embedded_once(store: Store) -> None:
    trace = both(store)
    # Six boards at the start, one retrieved, which is also the anchor, one imagined.
    data = Counter(re.findall(r"data:image/\w+;base64,([\w+/=]+)", trace_html(trace, store)))
    assert len(data) == 8
    assert set(data.values()) == {1}
    page = Page(trace_html(trace, store))
    places = Counter(a["class"].split()[1] for a in page.classed("picture"))
    assert sum(places.values()) == 9
    assert max(places.values()) == 2
    assert all(a["role"] == "img" and a["aria-label"] for a in page.classed("picture"))


def test_small_pictures_are_lossless_and_large_ones_reduced(store: Store) -> None:
    from io import BytesIO

    from PIL import Image

    small = store.ref(render(BOARD, 48), 0.0)
    large = store.ref(np.full((720, 1280, 3), 90, np.uint8), 1.0)
    page = Page(find_html("clip", "the ring", [(small, 0.4), (large, 0.3)], store))
    pictures = {
        kind: Image.open(BytesIO(base64.b64decode(data)))
        for kind, data in re.findall(r"image/(\w+);base64,([\w+/=]+)", page.css)
    }
    assert np.array_equal(np.asarray(pictures["png"]), render(BOARD, 48))
    assert pictures["jpeg"].size == (360, 203)
    assert page.css.count("image-rendering:pixelated") == 1


def test_imagined_frames_are_marked_everywhere(store: Store) -> None:
    trace = both(store)
    frame = trace.shown[-1]
    for html in (
        trace_html(trace, store),
        trace_html(trace, store, fragment=True),
        find_html("t", "q", [(frame, 0.1)], store),
    ):
        page = Page(html)
        drawn = page.classed("picture")
        marked = [a for a in drawn if "imagined" in a["class"].split()]
        assert len(marked) == 1
        assert "not in the video" in marked[0]["aria-label"]
        assert len(page.classed("badge")) == 1
        assert all(": real, at" in a["aria-label"] for a in drawn if a not in marked)
        assert re.search(r"\.picture\.imagined \{[^}]*dashed", page.css)
    anchor = both(store).model_copy(update={"initial": (frame,)})
    assert len(Page(trace_html(anchor, store)).classed("badge")) == 2


def test_hostile_text_is_escaped(store: Store) -> None:
    frame = store.board(3, 1.0, provenance=Retrieved(query=HOSTILE, score=float("nan")))
    made = Generated(prompt=HOSTILE, anchor=frame, seed=1, strength=0.5, model=HOSTILE)
    trace = make(
        store,
        Text(text=HOSTILE),
        Call(text=HOSTILE, tag=HOSTILE, query=HOSTILE, outcome="unknown"),
        Frames(
            tag=HOSTILE,
            frames=(frame, frame.model_copy(update={"provenance": made, "digest": HOSTILE})),
            note=HOSTILE,
            curve=curve(),
        ),
        Text(text=HOSTILE, author="graph"),
        Answer(text=HOSTILE, body=HOSTILE),
        question=Question(text=HOSTILE, options=(HOSTILE, "b")),
    ).model_copy(
        update={
            "id": HOSTILE,
            "video": Video(path=HOSTILE, digest=HOSTILE, seconds=6.0, width=1, height=1, frames=1, fps=1.0),
            "usage": Usage(
                loops=(Loop(prefilled=1, cached=1, decoded=1, seconds=1.0, stop=HOSTILE),),
                node_seconds={HOSTILE: 1.0},
            ),
            "versions": Versions(act2see=HOSTILE, reasoner=HOSTILE, tools={HOSTILE: HOSTILE}, config=HOSTILE),
        }
    )
    expected: list[tuple[str, dict[str, str]]] = []
    for fragment in (False, True):
        expected += Page(trace_html(both(store), store, fragment=fragment)).tags
    names = {tag for tag, _ in expected}
    attributes = {key for _, values in expected for key in values}
    pages = [
        trace_html(trace, store, title=HOSTILE),
        trace_html(trace, store, fragment=True),
        find_html(HOSTILE, HOSTILE, [(frame, 1.0)], store),
    ]
    for html in pages:
        page = Page(html)
        assert {tag for tag, _ in page.tags} <= names
        assert {k for _, a in page.tags for k in a} <= attributes
        assert "alert" not in page.css
        assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e]", html)
        html.encode("utf-8")
        assert "<script>alert(1)</script>" in page.text


def test_failed_calls_show_their_reason(store: Store) -> None:
    for outcome, why in OUTCOMES.items():
        call = Call(text="<zoom>x</zoom>", tag="zoom", query="x", outcome=outcome)
        page = Page(trace_html(make(store, call, Frames(tag="zoom", note="There is no tool <zoom>.")), store))
        assert "Told the model: There is no tool <zoom>." in page.text
        assert len(page.classed("failed")) == (outcome != "ok")
        assert why in page.text


def test_long_queries_are_cut_and_long_thoughts_are_not(store: Store) -> None:
    call = Call(text="", tag="retrieve", query="y" * 5000, outcome="over_long")
    html = trace_html(make(store, Text(text="z" * 5000), call), store)
    assert "z" * 5000 in html
    assert "y" * 401 not in html
    assert "4,600 more characters" in html


def test_forced_and_unlisted_answers_are_marked(store: Store) -> None:
    forced = make(
        store,
        Text(text="</think>", author="graph"),
        Answer(text="<answer>mauve</answer>", body="mauve", forced=True),
    )
    text = Page(trace_html(forced, store)).text
    assert "Made to answer" in text
    assert "Not written by the model" in text
    assert "Forced: the model was made to answer, because" in text
    assert "names none of the options" in text
    assert "chosen" not in text


def test_a_refused_video_shows_no_forced_answer(store: Store) -> None:
    """A configuration's guard ends a run with a forced answer and nothing else."""
    words = "I cannot tell: this clip does not show a board."
    refused = make(store, Answer(text=f"<answer>{words}</answer>", body=words, forced=True))
    refused = refused.model_copy(update={"usage": Usage(node_seconds={"view": 0.5, "answer": 0.0})})
    for fragment in (False, True):
        text = Page(trace_html(refused, store, fragment=fragment)).text
        assert words in text
        assert "refused before the model was asked" in text
        for absent in (
            "budget",
            "Forced",
            "forced",
            "Made to answer",
            "Chain of thought",
            "names none of the options",
            "loop",
        ):
            assert absent not in text, absent
    # If there is text before the answer, the budget was spent instead.
    forced = make(store, Text(text="</think>", author="graph"), *refused.segments)
    assert "Forced" in Page(trace_html(forced, store)).text


def test_a_page_links_back_to_the_overview(store: Store) -> None:
    page = Page(trace_html(both(store), store, back='index.html?"<x>'))
    assert [a["href"] for tag, a in page.tags if tag == "a" and "index" in a["href"]] == ['index.html?"<x>']
    assert not any(tag == "nav" for tag, _ in Page(trace_html(both(store), store)).tags)


def test_unfinished_traces_are_shown(store: Store) -> None:
    call, _ = retrieved(store)
    text = Page(trace_html(make(store, Text(text="Let me look. "), call), store)).text
    assert "not finished" in text
    assert "No result yet." in text
    bare = Trace(
        id="",
        video=Video(path="", digest="", seconds=0, width=0, height=0, frames=0, fps=0),
        question=Question(text=""),
    )
    assert "Nothing has been written yet." in Page(trace_html(bare, store)).text


def test_missing_pixels_become_a_placeholder(store: Store) -> None:
    trace = both(store)
    del store.pixels[trace.shown[-1].digest]
    page = Page(trace_html(trace, store))
    gone = page.classed("missing")
    assert len(gone) == 1
    assert "imagined" in gone[0]["class"].split()
    assert "its pixels are not in the store" in gone[0]["aria-label"]
    assert "no longer holds the pixels of 1 frame" in page.text

    def nothing(frame: FrameRef) -> Pixels:
        raise KeyError(frame.digest)

    assert "data:" not in Page(trace_html(trace, nothing)).css


def test_pixels_come_from_the_frame_store_by_default(store: Store) -> None:
    from act2see.tools.video.store import FrameStore

    call, frames = retrieved(store)
    trace = make(store, call, frames, initial=0)
    assert len(Page(trace._repr_html_()).classed("missing")) == 1
    digest = FrameStore().put(store(frames.frames[0]))
    kept = frames.model_copy(update={"frames": (frames.frames[0].model_copy(update={"digest": digest}),)})
    assert not Page(make(store, call, kept, initial=0)._repr_html_()).classed("missing")


def test_heavy_pictures_shrink_to_the_budget(store: Store) -> None:
    noise = np.random.default_rng(0)
    frames = tuple(store.ref(noise.integers(0, 256, (360, 640, 3), np.uint8), float(i)) for i in range(20))
    trace = make(store).model_copy(update={"initial": frames})
    assert len(trace_html(trace, store).encode()) <= 2_000_000


def test_a_page_of_many_frames_stays_small(store: Store) -> None:
    steps: list[Text | Call | Frames] = []
    for i in range(60):
        steps += [Text(text=f"Again, {i}. "), *retrieved(store, 0.1 * i)]
    trace = make(store, *steps, initial=60)
    html = trace_html(trace, store)
    assert len(html) <= 700_000
    page = Page(html)
    assert len(page.classed("tiles")) == 1
    assert "60 frames given at the start" in page.text
    assert sum(tag == "a" for tag, _ in page.tags) == 60


def test_a_fragment_has_no_ids_and_only_scoped_styles(store: Store) -> None:
    html = trace_html(both(store), store, fragment=True)
    page = Page(html)
    assert page.tags[0][0] == "div"
    assert {tag for tag, _ in page.tags}.isdisjoint({"html", "head", "body", "meta", "h1", "a", "main"})
    assert not any("id" in a for _, a in page.tags)
    rules = re.sub(r"/\*.*?\*/|@media[^{]*\{", "", page.css, flags=re.S)
    for selectors in re.findall(r"([^{}]+)\{", rules):
        parts = re.split(r",(?![^(]*\))", selectors)
        assert all(s.strip().startswith(".a2s") for s in parts if s.strip()), selectors


def test_find_html_lists_frames_with_times_and_scores(store: Store, tmp_path: Path) -> None:
    rows = [(store.board(i, 12.5 * i), 0.4 - 0.1 * i) for i in range(3)]
    html = find_html("board.mp4", "the ring blinks", rows, store)
    (tmp_path / "sheet.html").write_text(html, encoding="utf-8")
    text = Page(html).text
    for words in ("board.mp4", "the ring blinks", "0.0 s", "score 0.40", "25.0 s", "score 0.20"):
        assert words in text
    assert "No frame was found." in Page(find_html("board.mp4", "a dog", [], store)).text


def test_earlier_turns_are_above_the_question(store: Store) -> None:
    first = Turn(question="What colour is the circle?", answer="red")
    turns = (first, Turn(question=HOSTILE, answer=HOSTILE))
    trace = make(store, question=Question(text="And the ring?", earlier=turns))
    page = Page(trace_html(trace, store))
    assert page.text.index("What colour is the circle? red") < page.text.rindex("And the ring?")
    assert [a["aria-label"] for a in page.classed("earlier")] == ["Asked before"]
    assert not any(tag == "script" for tag, _ in page.tags)
    assert not Page(trace_html(make(store), store)).classed("earlier")
