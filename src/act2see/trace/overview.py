"""Several traces on one page, each with a picture and a link to its own page.

The picture shows the frames that were returned last: the real one and, beside it, the imagined one, marked as
on every page.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from act2see.tools.frames import FrameRef
from act2see.trace.markup import Html, el
from act2see.trace.page import earlier_list, page
from act2see.trace.pictures import Pictures, figure
from act2see.trace.timeline import clock
from act2see.trace.trace import Trace

if TYPE_CHECKING:
    from act2see.tools.video.store import FrameSource


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the overview."""

    trace: Trace
    href: str
    """The address of the trace's page."""
    note: str = ""
    """A note on the answer, such as "right"."""


def index_html(title: str, about: str, entries: Sequence[Entry], frames: FrameSource | None = None) -> str:
    """Return an overview of several traces as one self-contained HTML file.

    Args:
        title: The heading.
        about: The sentence below the heading.
        entries: The traces, in the order of the page.
        frames: The source of pixels, as for `trace_html`.
    """
    pictures = Pictures(frames)
    body = el(
        "article",
        el("header", el("h1", title, dir="auto"), el("p", about, class_="summary")),
        el("ol", (_entry(e, pictures) for e in entries), class_="runs", role="list"),
    )
    return page(body, pictures, title, fragment=False)


def _entry(entry: Entry, pictures: Pictures) -> Html:
    trace = entry.trace
    shown = [_picture(f, trace, pictures) for f in _select_frames(trace)]
    answer = trace.choice or trace.answer or "no answer"
    note = el("span", entry.note, class_="muted") if entry.note else None
    return el(
        "li",
        el("div", shown, class_="seen"),
        el(
            "div",
            earlier_list(trace.question.earlier),
            el("h2", el("a", trace.question.text, href=entry.href), dir="auto"),
            el("p", el("bdi", answer), note),
        ),
    )


def _picture(frame: FrameRef, trace: Trace, pictures: Pictures) -> Html:
    when = "not in the video" if frame.imagined else clock(frame.seconds, trace.video.seconds)
    return figure(frame, pictures, [el("span", when)], "a frame of this run")


def _select_frames(trace: Trace) -> Iterator[FrameRef]:
    """Yield the last real frame and the last imagined one.

    Without a real frame among the returned ones, the anchor of the imagined one takes its place, else the
    middle one of the initial frames.
    """
    latest = trace.returned[::-1]
    imagined = next((f for f in latest if f.imagined), None)
    real = next((f for f in latest if not f.imagined), None)
    if real is None and imagined and imagined.anchor and not imagined.anchor.imagined:
        real = imagined.anchor
    if real is None and trace.initial:
        real = trace.initial[len(trace.initial) // 2]
    if real:
        yield real
    if imagined:
        yield imagined
