"""A trace as a page: what was asked, what was seen, what was thought, what was imagined.

One self-contained file: no script, nothing from elsewhere, and a content policy that forbids both should a
hostile text ever get through the escaping. The same view without the page around it serves notebooks, whose
theme it takes. Every call stands where it was made, with what came of it beside how it was found.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from act2see.tools.frames import FrameRef, Generated, Retrieved, Supplied
from act2see.trace.markup import Html, el, join
from act2see.trace.pictures import Pictures, picture
from act2see.trace.record import LETTERS, OUTCOMES, Answer, Call, Frames, Text, TraceRecord, Usage
from act2see.trace.timeline import clock, count, curve, timeline

if TYPE_CHECKING:
    from act2see.tools.video.store import FrameSource

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_MARKS = re.compile(r"(</?think>)")

_DECIDED = {
    "accept": "accepted the call",
    "replace": "gave another query",
    "supply": "supplied a frame instead",
    "refuse": "refused the call",
}


def trace_html(
    trace: TraceRecord,
    frames: FrameSource | None = None,
    *,
    fragment: bool = False,
    title: str | None = None,
    back: str | None = None,
) -> str:
    """The trace as one HTML file, or with `fragment` as a `<div>` for notebooks.

    `frames` gives pixels, `(h, w, 3)` uint8; by default the frame store does. A frame that it does not have
    (`Act2SeeError`, `LookupError`, `OSError`) becomes a placeholder. `back` is the address of a page of
    several traces (`index_html`) that this one leads back to.
    """
    pictures = Pictures(frames)
    way = el("nav", el("a", "\N{LEFTWARDS ARROW} all questions", href=back)) if back else ""
    body = Html(way + article(trace, pictures, fragment=fragment))
    return page(body, pictures, title or f"{trace.question.text[:120]} · act2see", fragment)


def article(trace: TraceRecord, pictures: Pictures, *, fragment: bool, running: bool = False) -> Html:
    """The trace without its style: `stylesheet()` and `pictures.css()` go with it.

    A fragment may stand anywhere in another page, several times. Of a run that is `running`, nothing is said
    yet about its answer or its end.
    """
    h = "h3" if fragment else "h2"
    only_answer = len(trace.segments) == 1 and isinstance(trace.segments[0], Answer)
    return el(
        "article",
        _head(trace, "h2" if fragment else "h1", running),
        el("section", el(h, "The clip"), timeline(trace, links=not fragment)),
        initial_section(trace, pictures, h),
        chain_section(trace, pictures, h, links=not fragment) if running or not only_answer else None,
        None if running and trace.answer is None else _answer(trace, h),
        _cost(trace.usage, h),
        None if running else _foot(trace, pictures.missing),
    )


def find_html(
    title: str, query: str, rows: Sequence[tuple[FrameRef, float]], frames: FrameSource | None = None
) -> str:
    """A sheet of found frames, best first: `rows` are frames with their scores. One HTML file."""
    pictures = Pictures(frames)
    longest = max((f.seconds for f, _ in rows if math.isfinite(f.seconds)), default=0.0)
    found = [
        el(
            "li",
            figure(
                f,
                pictures,
                [el("b", clock(f.seconds, longest)), el("span", f"score {_number(score)}")],
                f"found frame {n}",
            ),
        )
        for n, (f, score) in enumerate(rows, start=1)
    ]
    body = el(
        "article",
        el("header", el("p", title, class_="eyebrow", dir="auto"), el("h1", query, dir="auto")),
        el("section", el("h2", "Best first"), el("ol", found, class_="tiles large", role="list"))
        if found
        else el("p", "No frame was found.", class_="note"),
    )
    return page(body, pictures, f"{query[:120]} · {title[:120]}", fragment=False)


def page(body: Html, pictures: Pictures, title: str, fragment: bool) -> str:
    """A body with its style, as one HTML file or, with `fragment`, as a `<div>`."""
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
    return (
        f"<!doctype html>\n{el('html', head, el('body', el('main', body), class_='a2s page'), lang='en')}\n"
    )


@cache
def stylesheet() -> str:
    """The style of a trace, every rule under `.a2s`."""
    return files("act2see.trace").joinpath("page.css").read_text(encoding="utf-8")


def _number(value: float | None) -> str:
    return f"{value:.2f}" if value is not None and math.isfinite(value) else "?"


def figure(
    frame: FrameRef, pictures: Pictures, caption: Iterable[str | None], what: str, **attributes: str | None
) -> Html:
    """A frame with words below it; `what` opens its description for those who do not see it."""
    return el("figure", picture(frame, pictures, what), el("figcaption", caption), **attributes)


def _head(trace: TraceRecord, h: str, running: bool) -> Html:
    video, question = trace.video, trace.question
    # The name alone: a full path says more about the person than about the clip.
    name = re.split(r"[\\/]", video.path.partition("?")[0].rstrip("\\/"))[-1] or "video"
    facts = [
        el("bdi", name, class_="file"),
        el("span", clock(video.seconds, video.seconds)),
        el("span", f"{video.width} \N{MULTIPLICATION SIGN} {video.height}"),
        el("span", f"{_number(video.fps).removesuffix('.00')} frames a second") if video.fps > 0 else None,
    ]
    options = [
        el(
            "li",
            el("span", LETTERS[i] if i < len(LETTERS) else str(i + 1), class_="letter"),
            el(
                "span",
                el("bdi", option),
                el("span", "chosen", class_="mark") if option == trace.choice else None,
            ),
            class_="chosen" if option == trace.choice else None,
        )
        for i, option in enumerate(question.options)
    ]
    return el(
        "header",
        el("p", join(" · ", facts), class_="eyebrow"),
        el(h, question.text, dir="auto", class_="question" if len(question.text) <= 240 else "question long"),
        el("ol", options, class_="options", role="list") if options else None,
        None if running else el("p", _summary(trace), class_="summary"),
    )


def _summary(trace: TraceRecord) -> str:
    if trace.refused:
        return "Not answered: the video was refused before the model was asked."
    later = trace.shown[len(trace.initial) :]
    imagined = sum(f.imagined for f in later)
    seen = [count(len(later) - imagined, "retrieved frame")] if len(later) > imagined else []
    seen += [count(imagined, "imagined frame")] if imagined else []
    seconds = sum(trace.usage.node_seconds.values()) or sum(loop.seconds for loop in trace.usage.loops)
    how = f"with {' and '.join(seen)}" if seen else "from the first frames alone"
    cost = [count(trace.usage.tokens, "token"), f"{seconds:.1f} s"] if trace.usage.loops else []
    if trace.answer is None:
        return (
            ", ".join(["This run is not finished" + (f": so far {how}" if trace.segments else ""), *cost])
            + "."
        )
    forced = any(isinstance(s, Answer) and s.forced for s in trace.segments)
    return ", ".join([f"{'Made to answer' if forced else 'Answered'} {how}", *cost]) + "."


def initial_section(trace: TraceRecord, pictures: Pictures, h: str) -> Html | None:
    """The frames that were given at the start, under a heading of level `h`."""
    if not trace.initial:
        return None
    tiles = [
        el(
            "li",
            figure(
                f, pictures, [clock(f.seconds, trace.video.seconds)], f"frame given at the start, number {n}"
            ),
        )
        for n, f in enumerate(trace.initial, start=1)
    ]
    many = "tiles many" if len(tiles) > 24 else "tiles"
    return el("section", el(h, "Frames given at the start"), el("ol", tiles, class_=many, role="list"))


def chain_section(
    trace: TraceRecord, pictures: Pictures, h: str, links: bool, title: str = "Chain of thought"
) -> Html:
    """The chain with its frames in place. With `links` frames have ids, so it may stand once in a page."""
    parts: list[Html | None] = []
    call: Call | None = None
    n = 1
    for segment in trace.segments:
        if call and not isinstance(segment, Frames):
            parts.append(_look(call, None, n, trace, pictures, links))
            call = None
        if isinstance(segment, Text):
            parts.append(_said(segment))
        elif isinstance(segment, Call):
            call = segment
        elif isinstance(segment, Frames):
            parts.append(_look(call, segment, n, trace, pictures, links))
            call, n = None, n + len(segment.frames)
    if call:
        parts.append(_look(call, None, n, trace, pictures, links))
    if not trace.segments:
        parts.append(el("p", "Nothing has been written yet.", class_="note"))
    return el("section", el(h, title), parts, class_="chain")


def _said(text: Text) -> Html | None:
    """Reasoning, as written; the marks of the thought are there, but faint."""
    paragraphs = [p.strip() for p in re.split(r"\n\s*\n", text.text) if p.strip()]
    marked = [
        [el("code", part, class_="faint") if _MARKS.fullmatch(part) else part for part in _MARKS.split(p)]
        for p in paragraphs
    ]
    shown = [el("p", parts, class_="said", dir="auto") for parts in marked]
    if text.author == "graph" and shown:
        why = "Not written by the model: the budget was spent and the thought was closed for it."
        return el("div", el("p", why, class_="note"), shown, class_="forced")
    return Html("".join(shown)) if shown else None


def _look(
    call: Call | None, frames: Frames | None, first: int, trace: TraceRecord, pictures: Pictures, links: bool
) -> Html:
    """One call with what came of it; its frames are numbered from `first`."""
    came = frames.frames if frames else ()
    failed = call is not None and call.outcome != "ok"
    kind = (
        "failed" if failed else "imagined" if any(f.imagined for f in came) else "real" if came else "empty"
    )
    tag, query = (call.tag, call.query) if call else (frames.tag if frames else "", "")
    head = el(
        "p",
        el("span", tag or "no tag", class_="tag"),
        " ",
        el(
            "bdi",
            query if len(query) <= 400 else f"{query[:400]} … ({len(query) - 400:,} more characters)",
            class_="query",
        ),
        el("span", f"took {frames.seconds:.2f} s", class_="took") if frames and frames.seconds > 0 else None,
        class_="call",
    )
    outcome = None
    if frames and (review := frames.review):
        outcome = el(
            "p",
            el("b", "A person was asked"),
            ": ",
            el("bdi", f"{review.by} {_DECIDED[review.decision]}"),
            ".",
            class_="note",
        )
    if call and failed:
        outcome = el(
            "p",
            el("b", f"Not run ({call.outcome.replace('_', ' ')})"),
            f": {OUTCOMES[call.outcome]}.",
            class_="outcome",
        )
    shown: list[Html | None] = [
        _returned(f, n, trace, pictures, links) for n, f in enumerate(came, start=first)
    ]
    shown.append(curve(trace, frames) if frames else None)
    note = (
        el("p", el("b", "Told the model: "), el("bdi", frames.note), class_="note")
        if frames and frames.note
        else None
    )
    waiting = (
        el("p", "Nothing has come back yet.", class_="note")
        if frames is None and call is trace.segments[-1]
        else None
    )
    return el(
        "div",
        head,
        outcome,
        note,
        el("div", shown, class_="returned") if any(shown) else None,
        waiting,
        class_=f"look {kind}",
    )


def _returned(frame: FrameRef, n: int, trace: TraceRecord, pictures: Pictures, links: bool) -> Html:
    """A frame that came back, in place; an imagined one beside the real one that it was made from."""
    total, p = trace.video.seconds, frame.provenance
    id = f"frame-{n}" if links else None
    if not isinstance(p, Generated):
        score = f"score {_number(p.score)}" if isinstance(p, Retrieved) else None
        given = el("bdi", f"supplied by {p.by}") if isinstance(p, Supplied) else None
        said = score or given or (f"a part: {frame.part}" if frame.part else None)
        when = "not in the video" if frame.imagined else clock(frame.seconds, total)
        caption = [el("b", str(n), class_="number"), el("b", when), el("span", said) if said else None]
        return figure(
            frame,
            pictures,
            caption,
            f"{'supplied' if given else 'retrieved'} frame {n}",
            id=id,
            class_="frame",
        )
    made = join(" · ", [p.model, f"strength {p.strength:g}", f"seed {p.seed}"])
    anchor = [
        el("b", clock(p.anchor.seconds, total)),
        el("span", "the anchor" if p.anchor.imagined else "the anchor, real"),
    ]
    named = el("span", el("b", str(n), class_="number"), " ", el("b", "not in the video"))
    caption = [named, el("span", p.verdict) if p.verdict else None, el("span", made, class_="muted")]
    return el(
        "div",
        figure(p.anchor, pictures, anchor, f"anchor of imagined frame {n}", class_="anchor"),
        el("span", "→", class_="arrow", aria_hidden="true"),
        figure(frame, pictures, caption, f"frame {n}", class_="frame"),
        id=id,
        class_="pair",
    )


def _answer(trace: TraceRecord, h: str) -> Html:
    answer = next((s for s in trace.segments if isinstance(s, Answer)), None)
    if answer is None:
        return el(
            "section",
            el(h, "Answer"),
            el("p", "There is none: this run is not finished.", class_="note"),
            class_="answer",
        )
    choice, body = trace.choice, answer.body.strip()
    if trace.refused:
        return el("section", el(h, "No answer"), el("p", el("bdi", body), class_="body"), class_="answer")
    unlisted = bool(trace.question.options) and choice is None
    return el(
        "section",
        el(h, "Answer"),
        el(
            "p",
            el("bdi", body or "(empty)"),
            el("bdi", choice, class_="option") if choice and choice != body else None,
            class_="body",
        ),
        el("p", "It names none of the options.", class_="outcome") if unlisted else None,
        el(
            "p",
            el("b", "Forced"),
            ": the budget was spent, so the model was made to answer.",
            class_="outcome",
        )
        if answer.forced
        else None,
        class_="answer",
    )


def _cost(usage: Usage, h: str) -> Html | None:
    if not usage.loops and not usage.node_seconds:
        return None
    loops, nodes, parts = usage.loops, usage.node_seconds, [el(h, "Cost")]
    if loops:
        head = ["loop", "prefilled", "cached", "decoded", "seconds", "stopped at"]
        counts = [(x.prefilled, x.cached, x.decoded, x.seconds) for x in loops]
        rows = [
            [str(n), *_costs(c), x.stop] for n, (c, x) in enumerate(zip(counts, loops, strict=True), start=1)
        ]
        total = ["all", *_costs([sum(c) for c in zip(*counts, strict=True)]), ""]
        parts.append(_table("Tokens by loop of the reasoner", head, rows, total, "loops"))
    if nodes:
        longest = max(nodes.values()) or 1.0
        rows = [[name, _bar(seconds / longest), f"{seconds:.2f}"] for name, seconds in nodes.items()]
        total = ["all", "", f"{sum(nodes.values()):.2f}"]
        parts.append(_table("Seconds by node of the graph", ["node", "", "seconds"], rows, total, "nodes"))
    return el("section", parts, class_="cost")


def _costs(values: Sequence[float]) -> list[str]:
    *tokens, seconds = values
    return [*(f"{t:,}" for t in tokens), f"{seconds:.2f}"]


def _bar(share: float) -> Html:
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
    v = trace.versions
    facts = {
        "trace": trace.id,
        "act2see": v.act2see,
        "reasoner": v.reasoner,
        **{f"tool {name}": version for name, version in v.tools.items()},
        "config": v.config,
        "seed": str(v.seed),
        "video": trace.video.digest,
    }
    gone = (
        f"The frame store no longer holds the pixels of {count(missing, 'frame')} of this trace."
        if missing
        else None
    )
    rows = [el("div", el("dt", k), el("dd", value)) for k, value in facts.items() if value]
    return el("footer", el("p", gone) if gone else None, el("dl", rows))
