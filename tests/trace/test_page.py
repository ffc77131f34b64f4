"""The page of a trace: whole, safe, small, and honest about what is imagined."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from act2see.errors import StoreError
from act2see.micro.world import Board, Edit, Piece, render
from act2see.tools.frames import Curve, FrameRef, Generated, Initial, Provenance, Retrieved
from act2see.trace.overview import Entry, index_html
from act2see.trace.page import find_html, trace_html
from act2see.trace.record import OUTCOMES, Answer, Call, Frames, Loop, Question, Text, Usage, Versions, Video
from act2see.trace.timeline import Scale, clock
from act2see.trace.trace import Trace

Pixels = NDArray[np.uint8]
BOARD = Board(
    (Piece("circle", "red", (0, 0)), Piece("ring", "green", (1, 2)), Piece("square", "blue", (2, 1)))
)
HOSTILE = "\"><script>alert(1)</script><img src=x onerror='f()'></style></title>&lt;\x00\x1b\ud800\u202e"


class Store:
    """Pixels by digest, as a frame store has them."""

    def __init__(self) -> None:
        self.pixels: dict[str, Pixels] = {}

    def ref(self, pixels: Pixels, seconds: float, provenance: Provenance | None = None) -> FrameRef:
        digest = hashlib.blake2b(pixels.tobytes(), digest_size=16).hexdigest()
        self.pixels[digest] = pixels
        return FrameRef(
            digest=digest,
            width=pixels.shape[1],
            height=pixels.shape[0],
            seconds=seconds,
            provenance=provenance or Initial(),
        )

    def board(
        self, n: int, seconds: float, size: int = 192, provenance: Provenance | None = None
    ) -> FrameRef:
        cell = divmod(n % 9, 3)
        return self.ref(
            render(
                Board((Piece("circle", "red", cell), Piece("ring", "green", (cell[0], 2 - cell[1])))), size
            ),
            seconds,
            provenance,
        )

    def __call__(self, frame: FrameRef) -> Pixels:
        if frame.digest not in self.pixels:
            raise StoreError(f"no frame {frame.digest}")
        return self.pixels[frame.digest]


class Page(HTMLParser):
    """Reads a page strictly: every element is closed, in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.style: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({k for k, _ in attrs}) == len(attrs), f"<{tag}> repeats an attribute"
        self.tags.append((tag, {k: v or "" for k, v in attrs}))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            (self.style if self.open[-1] == "style" else self.words).append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    @property
    def css(self) -> str:
        return "".join(self.style)

    def classed(self, name: str) -> list[dict[str, str]]:
        return [a for _, a in self.tags if name in a.get("class", "").split()]


@pytest.fixture
def store() -> Store:
    return Store()


def make(
    store: Store, *segments: Text | Call | Frames | Answer, initial: int = 6, question: Question | None = None
) -> Trace:
    return Trace(
        id="t1",
        video=Video(
            path="/videos/someone/clips/board.mp4",
            digest="9f3a",
            seconds=6.0,
            width=192,
            height=192,
            frames=72,
            fps=12.0,
        ),
        question=question
        or Question(text="What colour does the ring turn?", options=("red", "green", "blue")),
        initial=tuple(store.board(i, float(i)) for i in range(initial)),
        segments=segments,
        usage=Usage(
            loops=(
                Loop(prefilled=820, cached=0, decoded=64, seconds=0.61, stop="</retrieve>"),
                Loop(prefilled=40, cached=884, decoded=31, seconds=0.31, stop="</answer>"),
            ),
            node_seconds={"view": 0.1, "reason": 0.92, "retrieve": 0.2},
        ),
        versions=Versions(
            act2see="0.1.0",
            reasoner="micro-vlm",
            tools={"retrieve": "retrieve micro"},
            config="b1946",
            seed=7,
        ),
    )


def curve(peak: int = 8) -> Curve:
    return Curve(start=0.0, step=1 / 3, values=tuple(0.43 if i == peak else 0.15 for i in range(18)))


def retrieved(store: Store, seconds: float = 2.7) -> tuple[Call, Frames]:
    frame = store.board(7, seconds, provenance=Retrieved(query="the ring blinks", score=0.43, index_id="i"))
    call = Call(text="<retrieve> the ring blinks </retrieve>", tag="retrieve", query="the ring blinks")
    return call, Frames(tag="retrieve", frames=(frame,), curve=curve(), seconds=0.21)


def imagined(store: Store, anchor: FrameRef) -> tuple[Call, Frames]:
    edit = Edit("right")
    made = Generated(
        prompt=str(edit),
        anchor=anchor,
        seed=11,
        strength=0.5,
        model="micro-sd3",
        faithfulness=0.31,
        anchor_score=0.35,
        scores=(0.2, 0.31),
    )
    frame = store.ref(render(edit.apply(BOARD), 48), anchor.seconds, made)
    call = Call(text=f"<generate>{edit}</generate>", tag="generate", query=str(edit))
    return call, Frames(tag="generate", frames=(frame,), curve=curve(7), seconds=0.9)


def both(store: Store) -> Trace:
    call, frames = retrieved(store)
    return make(
        store,
        Text(text="No ring blinks in these frames. "),
        call,
        frames,
        Text(text="It turns green.\n\nNow the board is tipped. "),
        *imagined(store, frames.frames[0]),
        Text(text="So it is green.</think>\n"),
        Answer(text="<answer>B</answer>", body="B"),
    )


def test_a_trace_is_told_in_order(store: Store) -> None:
    page = Page(trace_html(both(store), store))
    text = page.text
    said = [
        "board.mp4",
        "6.0 s",
        "192",
        "What colour",
        "red",
        "green",
        "chosen",
        "No ring blinks",
        "retrieve",
        "2.7 s",
        "score 0.43",
    ]
    said += [
        "Now the board is tipped",
        "generate",
        "not in the video",
        "faithfulness 0.31, anchor 0.35: no closer",
        "the best of 2 (0.20, 0.31)",
        "seed 11",
    ]
    said += [
        "So it is green.",
        "Answer",
        "B",
        "prefilled",
        "</retrieve>",
        "884",
        "0.92",
        "micro-vlm",
        "b1946",
        "seed",
    ]
    at = 0
    for words in said:
        assert words in text[at:], words
        at = text.index(words, at)
    assert "/videos/someone" not in text
    assert [tag for tag, _ in page.tags].count("h1") == 1
    chosen = [a for tag, a in page.tags if tag == "li" and a.get("class") == "chosen"]
    assert len(chosen) == 1


def test_the_page_needs_nothing_from_elsewhere(store: Store) -> None:
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


def test_imagined_frames_are_marked_wherever_they_stand(store: Store) -> None:
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


def test_hostile_text_stays_text(store: Store) -> None:
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
    plain = [
        tag
        for fragment in (False, True)
        for tag in Page(trace_html(both(store), store, fragment=fragment)).tags
    ]
    names, attributes = {tag for tag, _ in plain}, {k for _, a in plain for k in a}
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


def test_calls_that_fail_say_why(store: Store) -> None:
    for outcome, why in OUTCOMES.items():
        call = Call(text="<zoom>x</zoom>", tag="zoom", query="x", outcome=outcome)
        page = Page(trace_html(make(store, call, Frames(tag="zoom", note="There is no tool <zoom>.")), store))
        assert "Told the model: There is no tool <zoom>." in page.text
        assert len(page.classed("failed")) == (outcome != "ok")
        assert why in page.text


def test_long_queries_are_cut_but_not_the_thought(store: Store) -> None:
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
    assert "Forced: the budget was spent" in text
    assert "names none of the options" in text
    assert "chosen" not in text


def test_a_refused_video_is_not_called_a_spent_budget(store: Store) -> None:
    """As a configuration's guard ends a run: a forced answer, and nothing else."""
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
    # With words of the model or of the graph it is the budget after all.
    assert (
        "Forced"
        in Page(trace_html(make(store, Text(text="</think>", author="graph"), *refused.segments), store)).text
    )


def test_a_page_leads_back_to_the_page_of_all(store: Store) -> None:
    page = Page(trace_html(both(store), store, back='index.html?"<x>'))
    assert [a["href"] for tag, a in page.tags if tag == "a" and "index" in a["href"]] == ['index.html?"<x>']
    assert not any(tag == "nav" for tag, _ in Page(trace_html(both(store), store)).tags)


def test_the_page_of_all_shows_a_real_frame_of_each_and_marks_what_is_imagined(store: Store) -> None:
    plain = make(store, Answer(text="<answer>B</answer>", body="B"))
    entries = [
        Entry(both(store), "both.html", "right"),
        Entry(plain, "plain.html"),
        Entry(make(store), "none.html", HOSTILE),
    ]
    html = index_html("all", "about", entries, store)
    page = Page(html)
    assert [a["href"] for tag, a in page.tags if tag == "a"] == ["both.html", "plain.html", "none.html"]
    said = [a["aria-label"] for _, a in page.tags if a.get("role") == "img"]
    assert [s.split(": ")[1].split(",")[0] for s in said] == ["real", "imagined", "real", "real"]
    assert html.count('class="badge"') == 1
    assert "<script" not in html
    assert "no answer" in page.text


def test_unfinished_traces_are_shown_as_far_as_they_are(store: Store) -> None:
    call, _ = retrieved(store)
    text = Page(trace_html(make(store, Text(text="Let me look. "), call), store)).text
    assert "not finished" in text
    assert "Nothing has come back yet." in text
    bare = Trace(
        id="",
        video=Video(path="", digest="", seconds=0, width=0, height=0, frames=0, fps=0),
        question=Question(text=""),
    )
    assert "Nothing has been written yet." in Page(trace_html(bare, store)).text


def test_missing_pixels_leave_a_placeholder(store: Store) -> None:
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


def test_without_a_source_the_frame_store_is_asked(store: Store) -> None:
    from act2see.tools.video.store import FrameStore

    call, frames = retrieved(store)
    trace = make(store, call, frames, initial=0)
    assert len(Page(trace._repr_html_()).classed("missing")) == 1
    digest = FrameStore().put(store(frames.frames[0]))
    kept = frames.model_copy(update={"frames": (frames.frames[0].model_copy(update={"digest": digest}),)})
    assert not Page(make(store, call, kept, initial=0)._repr_html_()).classed("missing")


def test_heavy_pictures_shrink_until_the_page_is_small(store: Store) -> None:
    noise = np.random.default_rng(0)
    frames = tuple(store.ref(noise.integers(0, 256, (360, 640, 3), np.uint8), float(i)) for i in range(20))
    trace = make(store).model_copy(update={"initial": frames})
    assert len(trace_html(trace, store).encode()) <= 2_000_000


def test_many_frames_stay_small(store: Store) -> None:
    steps = [s for i in range(60) for s in (Text(text=f"Again, {i}. "), *retrieved(store, 0.1 * i))]
    trace = make(store, *steps, initial=60)
    html = trace_html(trace, store)
    assert len(html) <= 700_000
    page = Page(html)
    assert len(page.classed("tiles")) == 1
    assert "60 frames given at the start" in page.text
    assert sum(tag == "a" for tag, _ in page.tags) == 60


def test_timeline_and_curves_mark_the_chosen_times(store: Store) -> None:
    page = Page(trace_html(both(store), store))
    lines = [a for tag, a in page.tags if tag == "line" and a.get("class") == "given"]
    assert [a["x1"] for a in lines] == ["0.0%", "16.667%", "33.333%", "50.0%", "66.667%", "83.333%"]
    discs = [a for tag, a in page.tags if tag == "circle"]
    assert [(a["class"], a["cx"]) for a in discs[:2]] == [("real", "45.0%"), ("imagined", "45.0%")]
    dots = [a for a in discs if "dot" in a["class"]]
    assert [a["cx"] for a in dots] == ["45.0%", "45.0%"]
    assert sum(tag == "polyline" for tag, _ in page.tags) == 2
    labels = " ".join(a["aria-label"] for tag, a in page.tags if tag == "svg" and "aria-label" in a)
    assert "frame 1 retrieved at 2.7 s; frame 2 imagined from the frame at 2.7 s" in labels
    assert "chosen at 2.7 s" in labels


@pytest.mark.parametrize(
    "odd",
    [
        Curve(start=0.0, step=0.0, values=(0.3,)),
        Curve(start=0.0, step=1.0, values=()),
        Curve(start=float("nan"), step=float("inf"), values=(float("nan"), 0.1)),
        Curve(start=-5.0, step=1e12, values=(0.2, 0.2)),
    ],
)
def test_odd_curves_and_times_are_drawn(store: Store, odd: Curve) -> None:
    far = store.board(1, 1e9)
    page = Page(
        trace_html(
            make(store, Frames(tag="retrieve", frames=(far, store.board(2, float("nan"))), curve=odd)), store
        )
    )
    for _, a in page.tags:
        assert not re.search(
            r"\b(nan|inf)\b",
            " ".join(v for k, v in a.items() if k in ("x", "x1", "cx", "cy", "points", "style")),
        )


@pytest.mark.parametrize(
    ("seconds", "total", "shown"),
    [
        (3.72, 8, "3.7 s"),
        (59.99, 60, "1:00.0"),
        (3.7, 90, "0:03.7"),
        (3723.4, 7200, "1:02:03"),
        (3.0, 7200, "0:00:03"),
        (75, 8, "1:15.0"),
    ],
)
def test_times_are_written_for_people(seconds: float, total: float, shown: str) -> None:
    assert clock(seconds, total) == shown


@pytest.mark.parametrize("total", [0.04, 1.0, 7.5, 59.9, 60.0, 754.0, 10_800.0, 400_000.0])
def test_the_axis_has_few_round_ticks(total: float) -> None:
    ticks = Scale(total).ticks(6)
    assert 1 <= len(ticks) <= 7
    assert ticks[0] == 0
    assert ticks[-1] <= total * 1.000001
    assert len({Scale(total).label(t) for t in ticks}) == len(ticks)


def test_a_fragment_keeps_to_itself(store: Store) -> None:
    html = trace_html(both(store), store, fragment=True)
    page = Page(html)
    assert page.tags[0][0] == "div"
    assert {tag for tag, _ in page.tags}.isdisjoint({"html", "head", "body", "meta", "h1", "a", "main"})
    assert not any("id" in a for _, a in page.tags)
    rules = re.sub(r"/\*.*?\*/|@media[^{]*\{", "", page.css, flags=re.S)
    for selectors in re.findall(r"([^{}]+)\{", rules):
        parts = re.split(r",(?![^(]*\))", selectors)
        assert all(s.strip().startswith(".a2s") for s in parts if s.strip()), selectors


def test_find_is_a_sheet_of_frames(store: Store, tmp_path: Path) -> None:
    rows = [(store.board(i, 12.5 * i), 0.4 - 0.1 * i) for i in range(3)]
    html = find_html("board.mp4", "the ring blinks", rows, store)
    (tmp_path / "sheet.html").write_text(html, encoding="utf-8")
    text = Page(html).text
    for words in ("board.mp4", "the ring blinks", "0.0 s", "score 0.40", "25.0 s", "score 0.20"):
        assert words in text
    assert "No frame was found." in Page(find_html("board.mp4", "a dog", [], store)).text
