"""A trace to look through in a notebook: scrub the chain, choose a call, see its candidates and their scores.

    parts = cached_parts(load_config("micro"))
    explorer = explore(trace, parts.resources.store, finder=parts.resources.finder)

An `anywidget`: one ES module without a build step, which works in Jupyter, VS Code and Colab. `explorer.at`
is the step and `explorer.call` the number of the chosen call, both ways: `fork(graph, trace, explorer.call,
...)` goes on from what one looks at. Texts go over as text and are set as text; each picture goes over once,
within the budget of a page.

A trace keeps the curve of a search, so its candidates are the curve's peaks; with a `finder` they are the
frames that the index ranks best for the query, with their pictures. Without anywidget, and where no widget
runs (a notebook on a web page, a static export), the same trace shows as the page that it always has.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from act2see.errors import Act2SeeError
from act2see.tools.frames import Cropped, Curve, FrameRef, Generated, Retrieved, Supplied
from act2see.trace.markup import plain
from act2see.trace.page import stylesheet, trace_html
from act2see.trace.pictures import BUDGET, Pictures, stored_frames
from act2see.trace.record import LETTERS, OUTCOMES, Answer, Call, Frames, Text
from act2see.trace.timeline import Scale, clock, score_of, spot
from act2see.trace.trace import Trace

if TYPE_CHECKING:
    from act2see.tools.search.finder import Finder
    from act2see.tools.video.store import FrameSource, FrameStore

log = logging.getLogger(__name__)
Data = dict[str, Any]
CANDIDATES = 6
_TEXT, _QUERY = 20_000, 400  # characters of a step, of a query


def explore(
    trace: Trace, store: FrameStore | FrameSource | None = None, *, finder: Finder | None = None
) -> Any:
    """The explorer of a trace: a widget, or without anywidget (the extra `notebook`) its static page.

    `store` has the pixels, by default that of the cache; what is gone becomes a placeholder. `finder` looks
    the candidates of each search up again, where the video is still there and the same.
    """
    source: FrameSource = stored_frames() if store is None else store if callable(store) else _from(store)
    try:
        widget = _widget()
    except ImportError:
        log.warning(
            "anywidget is not installed, so this is the trace's static page: pip install 'act2see[notebook]'"
        )
        return StaticTrace(trace, source)
    view, pictures = explorer_data(trace, source, finder)
    last = max(0, len(view["steps"]) - 1)
    return widget(
        StaticTrace(trace, source), view=view, pictures=pictures, at=last, call=1 if trace.calls else 0
    )


@dataclass(frozen=True, slots=True)
class StaticTrace:
    """A trace that draws itself from the given frames."""

    trace: Trace
    frames: FrameSource

    def _repr_html_(self) -> str:
        return trace_html(self.trace, self.frames, fragment=True)


def explorer_data(
    trace: Trace, frames: FrameSource, finder: Finder | None = None
) -> tuple[Data, dict[str, str]]:
    """What the front end gets: the trace as plain JSON data, and the pictures (data URLs) by the names it
    uses."""
    pictures, scale = Pictures(frames), Scale.of(trace)
    finder = finder if finder and _same_video(trace, finder) else None
    every = [
        v
        for s in trace.segments
        if isinstance(s, Frames) and s.curve
        for v in s.curve.values
        if math.isfinite(v)
    ]
    view: Data = {
        "question": plain(trace.question.text[:_TEXT]),
        "options": [
            [a, plain(o), o == trace.choice] for a, o in zip(LETTERS, trace.question.options, strict=False)
        ],
        # The name alone: a full path says more about the person than about the clip.
        "file": plain(re.split(r"[\\/]", trace.video.path.partition("?")[0].rstrip("\\/"))[-1] or "video"),
        "seconds": clock(trace.video.seconds, trace.video.seconds),
        "scale": {
            "seconds": scale.total,
            "low": min(every, default=0.0),
            "high": max(every, default=0.0),
            "ticks": [[tick, scale.label(tick)] for tick in scale.ticks(4)],
        },
        "initial": [_frame(f, trace, pictures) for f in trace.initial],
        "steps": list(_steps(trace, pictures, finder)),
    }
    room, kept = BUDGET, {}
    for name, url in pictures.urls().items():  # the trace's own come first
        room -= len(url)
        if room >= 0:
            kept[name] = url
    return view, kept


def _from(store: FrameStore) -> FrameSource:
    return lambda frame: store.get(frame.digest)


def _same_video(trace: Trace, finder: Finder) -> bool:
    try:
        return finder.clips.clip(trace.video.path).info.digest == trace.video.digest
    except (Act2SeeError, OSError):
        return False


def _steps(trace: Trace, pictures: Pictures, finder: Finder | None) -> Iterator[Data]:
    """A step for each thing that was written; what a call brought back is part of it."""
    looks, calls, shown = iter(trace.looks), 0, list(trace.initial)
    for segment in trace.segments:
        if isinstance(segment, Text):
            yield {"kind": "text", "text": _short(segment.text, _TEXT), "author": segment.author}
        elif isinstance(segment, Answer):
            choice = trace.choice if trace.choice != segment.body.strip() else None
            forced = segment.forced and not trace.refused
            yield {
                "kind": "answer",
                "text": _short(segment.body, _TEXT),
                "choice": choice and plain(choice),
                "forced": forced,
            }
        elif isinstance(segment, Call):
            calls += 1
            _, came = next(looks)
            step = _call(segment, came, trace, shown, pictures, finder)
            yield step | {"call": calls, "first": len(shown) - len(trace.initial) + 1}
            shown += came.frames if came else ()


def _call(
    call: Call,
    came: Frames | None,
    trace: Trace,
    shown: Sequence[FrameRef],
    pictures: Pictures,
    finder: Finder | None,
) -> Data:
    frames = came.frames if came else ()
    found: list[Data] = []
    ranked, curve = "", came.curve if came else None
    notes = [("Not run", OUTCOMES[call.outcome])] if call.outcome != "ok" else []
    if came and (review := came.review):
        notes.append(
            (f"{review.by} decided", " ".join(w for w in (review.decision, review.query, review.reason) if w))
        )
    if came and came.note:
        notes.append(("Told the model", came.note))
    if came and curve:
        query = (came.review.query if came.review else "") or call.query
        found, ranked = _candidates(query, came, trace, shown, pictures, finder)
    failed, imagined = call.outcome != "ok", any(f.imagined for f in frames)
    said = [clock(spot(f), trace.video.seconds) if not f.imagined else "imagined" for f in frames[:3]]
    return {
        "kind": "failed" if failed else "imagined" if imagined else "real" if frames else "empty",
        "tag": plain(call.tag),
        "query": _short(call.query, _QUERY),
        "notes": [[plain(who), _short(words, _TEXT)] for who, words in notes],
        "took": f"took {came.seconds:.2f} s" if came and came.seconds > 0 else "",
        "came": "not run"
        if failed
        else ", ".join([*said, *(["…"] if len(frames) > 3 else [])]) or "no frame",
        "frames": [_frame(f, trace, pictures) for f in frames],
        "curve": curve
        and {"start": curve.start, "step": curve.step, "values": [_number(v) for v in curve.values]},
        "best": _number(max((v for v in curve.values if math.isfinite(v)), default=math.nan))
        if curve
        else None,
        "candidates": found,
        "ranked": ranked,
    }


def _candidates(
    query: str,
    came: Frames,
    trace: Trace,
    shown: Sequence[FrameRef],
    pictures: Pictures,
    finder: Finder | None,
) -> tuple[list[Data], str]:
    """What a call chose among, best first, and where that is known from. `came` has a curve."""
    assert came.curve is not None
    made_from = [(f.provenance.anchor if isinstance(f.provenance, Generated) else f, f) for f in came.frames]
    chosen = {source.seconds: (score_of(f, came.curve), source) for source, f in made_from}
    mark = "the anchor" if any(f.imagined for f in came.frames) else "chosen"
    seen = [f.seconds for f in shown if not f.imagined]
    rows, near, ranked = _ranked(query, trace, finder) or (
        [(seconds, score, None) for seconds, score in _peaks(came.curve)],
        came.curve.step / 2,
        "Peaks of the curve that the trace keeps; with a finder these are the frames that the index ranks best.",
    )
    listed: dict[float, tuple[float, FrameRef | None]] = {}
    for seconds, score, frame in rows:
        if not any(abs(seconds - c) <= near for c in chosen):
            listed[seconds] = score, frame
    out: list[Data] = []
    for seconds, (score, frame) in sorted((listed | chosen).items(), key=lambda row: -row[1][0]):
        state = (
            "chosen" if seconds in chosen else "seen" if any(abs(seconds - s) <= near for s in seen) else ""
        )
        out.append(
            {
                "seconds": _number(seconds),
                "at": clock(seconds, trace.video.seconds),
                "score": _number(score),
                "state": state,
                "mark": {"chosen": mark, "seen": "shown before", "": ""}[state],
                "frame": frame and _frame(frame, trace, pictures),
            }
        )
    return out, ranked


def _ranked(
    query: str, trace: Trace, finder: Finder | None
) -> tuple[Sequence[tuple[float, float, FrameRef | None]], float, str] | None:
    """Time, score and frame of the best for a query, how near two times are the same, and what to say of
    them."""
    if finder is None:
        return None
    try:
        hits = finder.find(trace.video.path, query, k=CANDIDATES).hits
        frames = finder.clips.pictures(trace.video.path, [h.frame for h in hits])
    except Act2SeeError as e:
        log.info("the candidates of %r are the peaks of its curve: %s", query[:80], e)
        return None
    rows = [(h.seconds, h.score, frame) for h, frame in zip(hits, frames, strict=True)]
    return rows, 1e-3, "The frames that the index ranks best for this query."


def _peaks(curve: Curve) -> list[tuple[float, float]]:
    """Times and values of the highest local maxima."""
    values = [v if math.isfinite(v) else -math.inf for v in curve.values]
    around = zip([-math.inf, *values], values, [*values[1:], -math.inf], strict=False)
    peaks = [
        (curve.start + i * curve.step, v)
        for i, (before, v, after) in enumerate(around)
        if before < v >= after
    ]
    return sorted(peaks, key=lambda p: -p[1])[:CANDIDATES]


def _frame(frame: FrameRef, trace: Trace, pictures: Pictures) -> Data:
    p, total = frame.provenance, trace.video.seconds
    return {
        "picture": pictures.name(frame),
        "seconds": _number(spot(frame)),
        "at": clock(frame.seconds, total),
        "imagined": frame.imagined,
        "width": frame.width,
        "height": frame.height,
        "facts": [_short(fact, _QUERY) for fact in _facts(frame)],
        "anchor": _frame(p.anchor, trace, pictures) if isinstance(p, Generated) else None,
    }


def _facts(frame: FrameRef) -> Iterator[str]:
    """Where a frame comes from, in lines."""
    p = frame.provenance
    if isinstance(p, Retrieved):
        yield f"score {p.score:.2f}"
    elif isinstance(p, Supplied):
        yield f"supplied by {p.by}"
    elif isinstance(p, Cropped):
        yield f"a part: {frame.part}"
    elif isinstance(p, Generated):
        if p.verdict:
            yield p.verdict
        yield f"{p.model} · strength {p.strength:g} · seed {p.seed}"


def _number(value: float) -> float | None:
    """JSON has no infinities."""
    return round(value, 4) if math.isfinite(value) else None


def _short(text: str, most: int) -> str:
    return (
        plain(text) if len(text) <= most else f"{plain(text[:most])} … ({len(text) - most:,} more characters)"
    )


@cache
def _widget() -> Callable[..., Any]:
    """The widget's class. Raises `ImportError` without anywidget."""
    import anywidget
    import traitlets

    class TraceExplorer(anywidget.AnyWidget):
        _esm = _asset("explorer.js")
        _css = f"{stylesheet()}\n{_asset('explorer.css')}"
        view = traitlets.Dict().tag(sync=True)
        pictures = traitlets.Dict().tag(sync=True)
        at = traitlets.Int(0, min=0).tag(sync=True)
        call = traitlets.Int(0, min=0).tag(sync=True)

        def __init__(self, page: StaticTrace, **traits: Any) -> None:
            self._page = page
            super().__init__(**traits)

        def __repr__(self) -> str:
            return f"TraceExplorer({self._page.trace.id}, {len(self.view['steps'])} steps)"

        def _repr_mimebundle_(self, **kwargs: Any) -> Any:
            # For whoever has no widgets: a notebook on a web page, a static export. Who has them prefers the
            # widget.
            data, metadata = super()._repr_mimebundle_(**kwargs) or ({}, {})
            return {**data, "text/html": self._page._repr_html_()}, metadata

    return TraceExplorer


def _asset(name: str) -> str:
    return files("act2see.trace").joinpath(name).read_text(encoding="utf-8")
