"""A trace as a page: the question, the frames, the thought, the answer and its cost.

The page is one self-contained file without scripts and without anything loaded from elsewhere. A content
security policy forbids both, in case a hostile text gets through the escaping. Notebooks show the same as a
`<div>`, which adopts their theme.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from act2see.tools.frames import FrameRef
from act2see.trace.chain import chain_section
from act2see.trace.markup import Html, el, join
from act2see.trace.options import option_label
from act2see.trace.pictures import Pictures, figure
from act2see.trace.record import Answer, Loop, TraceRecord, Turn, Usage
from act2see.trace.timeline import clock, count, finite, timeline

if TYPE_CHECKING:
    from act2see.tools.video.store import FrameSource

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_LONG_QUESTION = 240  # characters; longer questions get smaller type
_MANY = 24  # initial frames; more than these are drawn smaller


def trace_html(
    trace: TraceRecord,
    frames: FrameSource | None = None,
    *,
    fragment: bool = False,
    title: str | None = None,
    back: str | None = None,
) -> str:
    """Return a trace as one HTML file, or as a `<div>` for notebooks.

    Args:
        trace: The trace, finished or not.
        frames: The source of pixels, `(height, width, 3)` uint8 RGB; by default the frame store. A frame that
            it lacks (`Act2SeeError`, `LookupError`, `OSError`) becomes a placeholder.
        fragment: Return the `<div>`.
        title: The page's title; by default the question.
        back: The address of an overview (`index_html`) that the page links back to.
    """
    pictures = Pictures(frames)
    body = article(trace, pictures, fragment=fragment)
    if back:
        way = el("nav", el("a", "\N{LEFTWARDS ARROW} all questions", href=back))
        body = Html(way + body)
    return page(body, pictures, title or f"{trace.question.text[:120]} · act2see", fragment)


def article(trace: TraceRecord, pictures: Pictures, *, fragment: bool, running: bool = False) -> Html:
    """Return a trace as an `<article>`, whose style is `stylesheet()` and `pictures.css()`.

    Args:
        trace: The trace, finished or not.
        pictures: The pictures of the page.
        fragment: Leave out ids, so that another page can contain several such articles.
        running: Whether the run is still in progress. If so, summary and footer are left out, and the answer
            too while there is none.
    """
    h = "h3" if fragment else "h2"
    only_answer = len(trace.segments) == 1 and isinstance(trace.segments[0], Answer)
    chain = None
    if running or not only_answer:
        chain = chain_section(trace, pictures, h, links=not fragment)
    return el(
        "article",
        _head(trace, "h2" if fragment else "h1", running),
        el("section", el(h, "The clip"), timeline(trace, links=not fragment)),
        initial_section(trace, pictures, h),
        chain,
        None if running and trace.answer is None else _answer(trace, h),
        _cost(trace.usage, h),
        None if running else _foot(trace, pictures.missing),
    )


def find_html(
    title: str,
    query: str,
    rows: Sequence[tuple[FrameRef, float]],
    frames: FrameSource | None = None,
    threshold: float | None = None,
) -> str:
    """Return the frames that a search found as one HTML file.

    Args:
        title: The name of the video or folder that was searched.
        query: The query.
        rows: The frames with their scores, best first.
        frames: The source of pixels, as for `trace_html`.
        threshold: The score below which a frame does not match, and is marked; None marks none.
    """
    pictures = Pictures(frames)
    longest = max(finite(frame.seconds for frame, _ in rows), default=0.0)
    found = []
    for number, (frame, score) in enumerate(rows, start=1):
        matches = threshold is None or score >= threshold
        words = f"score {_number(score)}" if matches else f"no match, score {_number(score)}"
        caption = [el("b", clock(frame.seconds, longest)), el("span", words)]
        found.append(el("li", figure(frame, pictures, caption, f"found frame {number}")))
    sheet = el("p", "No frame was found.", class_="note")
    if found:
        sheet = el("section", el("h2", "Best first"), el("ol", found, class_="tiles large", role="list"))
    header = el("header", el("p", title, class_="eyebrow", dir="auto"), el("h1", query, dir="auto"))
    return page(el("article", header, sheet), pictures, f"{query[:120]} · {title[:120]}", fragment=False)


def page(body: Html, pictures: Pictures, title: str, fragment: bool) -> str:
    """Return a body with its style, as one HTML file or, with `fragment`, as a `<div>`."""
    style = el("style", Html(f"{stylesheet()}\n{pictures.css()}"))
    if fragment:
        return str(el("div", style, body, class_="a2s fragment"))
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        el("title", title),
        style,
    )
    html = el("html", head, el("body", el("main", body), class_="a2s page"), lang="en")
    return f"<!doctype html>\n{html}\n"


@cache
def stylesheet() -> str:
    """Return the style of a trace. Every rule is scoped to `.a2s`."""
    return files("act2see.trace").joinpath("page.css").read_text(encoding="utf-8")


def _number(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "?"


def _head(trace: TraceRecord, h: str, running: bool) -> Html:
    """The question with its options, and the outcome in one sentence."""
    video, question = trace.video, trace.question
    facts = [
        el("bdi", video.name, class_="file"),
        el("span", clock(video.seconds, video.seconds)),
        el("span", f"{video.width} \N{MULTIPLICATION SIGN} {video.height}"),
    ]
    if video.fps > 0:
        facts.append(el("span", f"{_number(video.fps).removesuffix('.00')} frames a second"))
    choice = trace.choice  # read once, because that takes time in proportion to the number of options
    options = [_option(i, option, option == choice) for i, option in enumerate(question.options)]
    size = "question long" if len(question.text) > _LONG_QUESTION else "question"
    return el(
        "header",
        el("p", join(" · ", facts), class_="eyebrow"),
        earlier_list(question.earlier),
        el(h, question.text, dir="auto", class_=size),
        el("ol", options, class_="options", role="list") if options else None,
        None if running else el("p", _summary(trace), class_="summary"),
    )


def earlier_list(turns: Sequence[Turn]) -> Html | None:
    """Return the earlier turns of a conversation with their answers, or None if there are none."""
    if not turns:
        return None
    rows = [el("li", el("bdi", t.question), " ", el("bdi", t.answer, class_="said")) for t in turns]
    return el("ol", rows, class_="earlier", role="list", aria_label="Asked before")


def _option(index: int, option: str, chosen: bool) -> Html:
    mark = el("span", "chosen", class_="mark") if chosen else None
    return el(
        "li",
        el("span", option_label(index), class_="letter"),
        el("span", el("bdi", option), mark),
        class_="chosen" if chosen else None,
    )


def _summary(trace: TraceRecord) -> str:
    """Return the outcome in one sentence, with the frames used and the cost."""
    if trace.refused:
        return "Not answered: the video was refused before the model was asked."
    parts = [_outcome(trace)]
    if trace.usage.loops:
        seconds = trace.usage.seconds or sum(loop.seconds for loop in trace.usage.loops)
        parts.append(count(trace.usage.tokens, "token"))
        if trace.usage.thinking:
            parts.append(count(trace.usage.thinking, "hidden token"))
        parts.append(f"{seconds:.1f} s")
    return ", ".join(parts) + "."


def _outcome(trace: TraceRecord) -> str:
    imagined = sum(frame.imagined for frame in trace.returned)
    retrieved = len(trace.returned) - imagined
    seen = []
    if retrieved:
        seen.append(count(retrieved, "retrieved frame"))
    if imagined:
        seen.append(count(imagined, "imagined frame"))
    source = f"with {' and '.join(seen)}" if seen else "from the first frames alone"
    if trace.answer is not None:
        return f"{'Made to answer' if trace.forced else 'Answered'} {source}"
    if not trace.segments:
        return "This run is not finished"
    return f"This run is not finished: so far {source}"


def initial_section(trace: TraceRecord, pictures: Pictures, h: str) -> Html | None:
    """Return the initial frames, or None if the trace has none.

    Args:
        trace: The trace, finished or not.
        pictures: The pictures of the page.
        h: The heading's element, such as "h2".
    """
    if not trace.initial:
        return None
    tiles = []
    for number, frame in enumerate(trace.initial, start=1):
        caption = [clock(frame.seconds, trace.video.seconds)]
        label = f"frame given at the start, number {number}"
        tiles.append(el("li", figure(frame, pictures, caption, label)))
    size = "tiles many" if len(tiles) > _MANY else "tiles"
    return el("section", el(h, "Frames given at the start"), el("ol", tiles, class_=size, role="list"))


def _answer(trace: TraceRecord, h: str) -> Html:
    answer = next((s for s in trace.segments if isinstance(s, Answer)), None)
    if answer is None:
        note = el("p", "None yet: this run is not finished.", class_="note")
        return el("section", el(h, "Answer"), note, class_="answer")
    choice, body = trace.choice, answer.body.strip()
    if trace.refused:
        return el("section", el(h, "No answer"), el("p", el("bdi", body), class_="body"), class_="answer")
    option = el("bdi", choice, class_="option") if choice and choice != body else None
    parts = [el("p", el("bdi", body or "(empty)"), option, class_="body")]
    if trace.question.options and choice is None:
        parts.append(el("p", "It names none of the options.", class_="outcome"))
    if answer.forced:
        why = f": the model was made to answer, because {trace.forced_because}."
        parts.append(el("p", el("b", "Forced"), why, class_="outcome"))
    return el("section", el(h, "Answer"), parts, class_="answer")


def _cost(usage: Usage, h: str) -> Html | None:
    """Tokens and seconds, in two tables."""
    if not usage.loops and not usage.node_seconds:
        return None
    parts = [el(h, "Cost")]
    if usage.loops:
        parts.append(_loops_table(usage.loops))
    if usage.node_seconds:
        parts.append(_nodes_table(usage))
    return el("section", parts, class_="cost")


def _loops_table(loops: Sequence[Loop]) -> Html:
    kinds = ["prefilled", "cached", "decoded", "seconds"]
    if any(loop.thinking for loop in loops):
        kinds.insert(3, "thinking")
    head = ["loop", *("hidden" if kind == "thinking" else kind for kind in kinds), "stopped at"]
    counts = [[getattr(loop, kind) for kind in kinds] for loop in loops]
    rows = []
    for number, (loop, values) in enumerate(zip(loops, counts, strict=True), start=1):
        rows.append([str(number), *_cost_cells(values), loop.stop])
    sums = [sum(column) for column in zip(*counts, strict=True)]
    total = ["all", *_cost_cells(sums), ""]
    return _table("Tokens by loop of the reasoner", head, rows, total, "loops")


def _nodes_table(usage: Usage) -> Html:
    nodes = usage.node_seconds
    longest = max(nodes.values()) or 1.0
    rows = [[name, _bar(seconds / longest), f"{seconds:.2f}"] for name, seconds in nodes.items()]
    total = ["all", "", f"{usage.seconds:.2f}"]
    return _table("Seconds by node of the graph", ["node", "", "seconds"], rows, total, "nodes")


def _cost_cells(values: Sequence[float]) -> list[str]:
    """Return the cells of one row: counts of tokens, then seconds."""
    *tokens, seconds = values
    return [*(f"{t:,}" for t in tokens), f"{seconds:.2f}"]


def _bar(share: float) -> Html:
    """A bar whose width is a share of the column, from 0 to 1."""
    width = 100 * min(1.0, max(0.0, share)) if math.isfinite(share) else 0.0
    return el("i", class_="bar", style=f"width:{width:.1f}%")


def _table(
    caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], total: Sequence[str], kind: str
) -> Html:
    def row(cells: Sequence[str]) -> Html:
        return el("tr", el("th", cells[0], scope="row"), (el("td", c) for c in cells[1:]))

    return el(
        "table",
        el("caption", caption),
        el("thead", el("tr", (el("th", c, scope="col") if c else el("td") for c in head))),
        el("tbody", (row(r) for r in rows)),
        el("tfoot", row(total)) if len(rows) > 1 else None,
        class_=kind,
    )


def _foot(trace: TraceRecord, missing: int) -> Html:
    """The trace's id and versions, and a note if pictures are missing."""
    versions = trace.versions
    facts = {"trace": trace.id, "act2see": versions.act2see, "reasoner": versions.reasoner}
    facts |= {f"tool {name}": version for name, version in versions.tools.items()}
    facts |= {"config": versions.config, "seed": str(versions.seed), "video": trace.video.digest}
    if versions.sampling:
        facts["sampling"] = ", ".join(f"{name} {value:g}" for name, value in versions.sampling.items())
    rows = [el("div", el("dt", name), el("dd", value)) for name, value in facts.items() if value]
    note = None
    if missing:
        note = f"The frame store no longer holds the pixels of {count(missing, 'frame')} of this trace."
    return el("footer", el("p", note) if note else None, el("dl", rows))
