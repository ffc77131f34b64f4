"""Several traces on one page, each with a picture and a link to its own page.

A trace is known again by what was seen last: the real frame that was retrieved, and the imagined one beside
it, marked as everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from act2see.tools.frames import FrameRef, Generated
from act2see.trace.markup import Html, el
from act2see.trace.page import figure, page
from act2see.trace.pictures import Pictures
from act2see.trace.timeline import clock
from act2see.trace.trace import Trace

if TYPE_CHECKING:
    from act2see.tools.video.store import FrameSource


@dataclass(frozen=True, slots=True)
class Entry:
    """A trace, the address of its page, and a note on its answer."""

    trace: Trace
    href: str
    note: str = ""


def index_html(title: str, about: str, entries: Sequence[Entry], frames: FrameSource | None = None) -> str:
    """One HTML file, which needs nothing else; `frames` gives pixels as for `trace_html`."""
    pictures = Pictures(frames)
    body = el(
        "article",
        el("header", el("h1", title, dir="auto"), el("p", about, class_="summary")),
        el("ol", (_entry(e, pictures) for e in entries), class_="runs", role="list"),
    )
    return page(body, pictures, title, fragment=False)


def _entry(entry: Entry, pictures: Pictures) -> Html:
    trace = entry.trace
    shown = [_picture(f, trace, pictures) for f in _chosen(trace)]
    answer = trace.choice or trace.answer or "no answer"
    return el(
        "li",
        el("div", shown, class_="seen"),
        el(
            "div",
            el("h2", el("a", trace.question.text, href=entry.href), dir="auto"),
            el("p", el("bdi", answer), el("span", entry.note, class_="muted") if entry.note else None),
        ),
    )


def _picture(frame: FrameRef, trace: Trace, pictures: Pictures) -> Html:
    when = "not in the video" if frame.imagined else clock(frame.seconds, trace.video.seconds)
    return figure(frame, pictures, [el("span", when)], "a frame of this run")


def _chosen(trace: Trace) -> Iterator[FrameRef]:
    """A real frame, and an imagined one where there is one."""
    later = trace.shown[len(trace.initial) :]
    imagined = next((f for f in reversed(later) if f.imagined), None)
    real = next((f for f in reversed(later) if not f.imagined), None)
    if (
        real is None
        and imagined
        and isinstance(made := imagined.provenance, Generated)
        and not made.anchor.imagined
    ):
        real = made.anchor
    if real is None and trace.initial:
        real = trace.initial[len(trace.initial) // 2]
    yield from (f for f in (real, imagined) if f)
