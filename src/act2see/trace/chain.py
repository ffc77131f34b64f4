"""The section of a page that shows the chain of thought: each call in place, with its result below it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from act2see.tools.frames import FrameRef
from act2see.tools.runtime.text import shorten_text
from act2see.trace.markup import Html, el
from act2see.trace.pictures import Pictures, figure
from act2see.trace.record import OUTCOMES, Call, Frames, Text, TraceRecord
from act2see.trace.timeline import clock, curve

_MARKS = re.compile(r"(</?think>)")
_MAX_QUERY = 400  # characters; longer queries are cut
_DECISIONS = {
    "accept": "accepted the call",
    "replace": "gave another query",
    "supply": "supplied a frame instead",
    "refuse": "refused the call",
}


@dataclass(frozen=True, slots=True)
class _Page:
    """The page that shows the chain."""

    trace: TraceRecord
    pictures: Pictures
    links: bool
    """Whether frames have ids, which the timeline's markers link to."""


def chain_section(
    trace: TraceRecord, pictures: Pictures, h: str, links: bool, title: str = "Chain of thought"
) -> Html:
    """Return the chain with its frames in place.

    Args:
        trace: The trace, finished or not.
        pictures: The pictures of the page.
        h: The heading's element, such as "h2".
        links: Whether frames have ids. Ids are unique, so a page can hold only one such chain.
        title: The heading.
    """
    page = _Page(trace, pictures, links)
    parts: list[Html | None] = []
    call: Call | None = None  # the last call, until its result follows
    number = 1  # number of the next returned frame
    for segment in trace.segments:
        if isinstance(segment, Frames):
            parts.append(_look(call, segment, number, page))
            call = None
            number += len(segment.frames)
            continue
        if call:
            parts.append(_look(call, None, number, page))
            call = None
        if isinstance(segment, Text):
            parts.append(_text(segment))
        elif isinstance(segment, Call):
            call = segment
    if call:
        parts.append(_look(call, None, number, page))
    if not trace.segments:
        parts.append(el("p", "Nothing has been written yet.", class_="note"))
    return el("section", el(h, title), parts, class_="chain")


def _text(text: Text) -> Html | None:
    """Reasoning as written, with faint `<think>` tags."""
    paragraphs = [_paragraph(p.strip()) for p in re.split(r"\n\s*\n", text.text) if p.strip()]
    if not paragraphs:
        return None
    if text.author == "graph":
        why = "Not written by the model: the graph closed the thought, to have it answer."
        return el("div", el("p", why, class_="note"), paragraphs, class_="forced")
    return Html("".join(paragraphs))


def _paragraph(text: str) -> Html:
    parts: list[str] = []
    for part in _MARKS.split(text):
        parts.append(el("code", part, class_="faint") if _MARKS.fullmatch(part) else part)
    return el("p", parts, class_="said", dir="auto")


def _look(call: Call | None, frames: Frames | None, first: int, page: _Page) -> Html:
    """A call with its result.

    Args:
        call: None for frames without a call.
        frames: None for a call without a result.
        first: The number of the first returned frame.
        page: The page that shows them.
    """
    waiting = frames is None and call is page.trace.segments[-1]
    return el(
        "div",
        _head(call, frames),
        _outcome(call) or _review(frames),
        _note(frames),
        _result(frames, first, page),
        el("p", "No result yet.", class_="note") if waiting else None,
        class_=f"look {call_kind(call, frames)}",
    )


def call_kind(call: Call | None, frames: Frames | None) -> str:
    """Return the CSS class that colours a call."""
    if call and call.outcome != "ok":
        return "failed"
    if frames is None or not frames.frames:
        return "empty"
    return "imagined" if any(frame.imagined for frame in frames.frames) else "real"


def _head(call: Call | None, frames: Frames | None) -> Html:
    """The tag, the query and the tool's time."""
    tag, query = "", ""
    if call:
        tag, query = call.tag, call.query
    elif frames:
        tag = frames.tag
    query = shorten_text(query, _MAX_QUERY)
    parts: list[str] = [el("span", tag or "no tag", class_="tag"), " ", el("bdi", query, class_="query")]
    if frames and frames.seconds > 0:
        parts.append(el("span", f"took {frames.seconds:.2f} s", class_="took"))
    return el("p", parts, class_="call")


def _outcome(call: Call | None) -> Html | None:
    """The reason why a call was not run."""
    if call is None or call.outcome == "ok":
        return None
    title = el("b", f"Not run ({call.outcome.replace('_', ' ')})")
    return el("p", title, f": {OUTCOMES[call.outcome]}.", class_="outcome")


def _review(frames: Frames | None) -> Html | None:
    """A person's decision about a call."""
    if frames is None or frames.review is None:
        return None
    review = frames.review
    decision = el("bdi", f"{review.by} {_DECISIONS[review.decision]}")
    return el("p", el("b", "A person was asked"), ": ", decision, ".", class_="note")


def _note(frames: Frames | None) -> Html | None:
    """The note to the model."""
    if frames is None or not frames.note:
        return None
    return el("p", el("b", "Told the model: "), el("bdi", frames.note), class_="note")


def _result(frames: Frames | None, first: int, page: _Page) -> Html | None:
    """The returned frames, numbered from `first`, and the curve of the search."""
    if frames is None:
        return None
    parts: list[Html | None] = []
    for number, frame in enumerate(frames.frames, start=first):
        draw = _frame_with_anchor if frame.anchor else _frame
        parts.append(draw(frame, number, page))
    parts.append(curve(page.trace, frames))
    return el("div", parts, class_="returned") if any(parts) else None


def _frame(frame: FrameRef, number: int, page: _Page) -> Html:
    """A frame that was not generated."""
    when = "not in the video" if frame.imagined else clock(frame.seconds, page.trace.video.seconds)
    caption = [el("b", str(number), class_="number"), el("b", when)]
    caption += [el("span", el("bdi", fact)) for fact in frame.facts]
    label = f"{frame.provenance.kind} frame {number}"
    return figure(frame, page.pictures, caption, label, id=_id(number, page), class_="frame")


def _frame_with_anchor(frame: FrameRef, number: int, page: _Page) -> Html:
    """A generated frame beside its anchor, the frame that it was made from."""
    anchor = frame.anchor
    assert anchor is not None
    anchor_caption = [
        el("b", clock(anchor.seconds, page.trace.video.seconds)),
        el("span", "the anchor" if anchor.imagined else "the anchor, real"),
    ]
    *verdict, settings = frame.facts
    caption = [
        el("span", el("b", str(number), class_="number"), " ", el("b", "not in the video")),
        *(el("span", fact) for fact in verdict),
        el("span", settings, class_="muted"),
    ]
    return el(
        "div",
        figure(anchor, page.pictures, anchor_caption, f"anchor of imagined frame {number}", class_="anchor"),
        el("span", "→", class_="arrow", aria_hidden="true"),
        figure(frame, page.pictures, caption, f"frame {number}", class_="frame"),
        id=_id(number, page),
        class_="pair",
    )


def _id(number: int, page: _Page) -> str | None:
    """The id of a frame's figure, which the timeline's markers link to."""
    return f"frame-{number}" if page.links else None
