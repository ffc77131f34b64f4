"""A notebook widget for one trace: step through the chain, choose a call, see its candidates and scores.

    parts = cached_parts(load_config("micro"))
    explorer = explore(trace, parts.resources.store, finder=parts.resources.finder)

The widget is an `anywidget`: one ES module without a build step, which works in Jupyter, VS Code and Colab.
`explorer.at` is the step and `explorer.call` the number of the chosen call. Both can be read and set, so
`fork(graph, trace, explorer.call, ...)` continues from the call on the screen. Text is sent and inserted as
plain text. Each picture is sent once, within the budget of a page.

A trace keeps the curve of a search, so the candidates are the peaks of that curve. With a `finder` they are
the frames that the index ranks best for the query, with their pictures. Without anywidget, and where no
widget runs (a web page, a static export), the trace appears as its page.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from act2see.errors import Act2SeeError
from act2see.tools.frames import Curve, FrameRef
from act2see.tools.runtime.text import shorten_text
from act2see.trace.chain import call_kind
from act2see.trace.markup import plain
from act2see.trace.options import option_label
from act2see.trace.page import stylesheet, trace_html
from act2see.trace.pictures import BUDGET, Pictures, stored_frames
from act2see.trace.record import OUTCOMES, Answer, Call, Frames, Text
from act2see.trace.timeline import Scale, clock, curve_range, curve_score, finite
from act2see.trace.trace import Trace

if TYPE_CHECKING:
    from act2see.tools.search.finder import Finder
    from act2see.tools.video.store import FrameSource

log = logging.getLogger(__name__)
Data = dict[str, Any]
"""Plain JSON data for the front end."""
CANDIDATES = 6
"""The number of candidates that are shown for a search."""
_MAX_TEXT = 20_000  # characters; longer texts are cut
_MAX_QUERY = 400  # characters; longer queries are cut
_LISTED = 3  # frames that the line of a call lists


def explore(trace: Trace, store: FrameSource | None = None, *, finder: Finder | None = None) -> Any:
    """Return the explorer of a trace: a widget, or its static page without anywidget (the extra `notebook`).

    Args:
        trace: The trace, finished or not.
        store: The source of pixels; by default the frame store of the cache. A missing frame becomes a
            placeholder.
        finder: Repeats the search of each call to find its candidates, if the video has not changed.
    """
    source = stored_frames() if store is None else store
    page = StaticTrace(trace, source)
    try:
        widget = _widget()
    except ImportError:
        log.warning(
            "anywidget is not installed; showing the static page instead: pip install 'act2see[notebook]'"
        )
        return page
    data, pictures = explorer_data(trace, source, finder)
    last = max(0, len(data["steps"]) - 1)
    return widget(page, data=data, pictures=pictures, at=last, call=1 if trace.calls else 0)


@dataclass(frozen=True, slots=True)
class StaticTrace:
    """A trace that a notebook shows as its page."""

    trace: Trace
    frames: FrameSource
    """The source of pixels."""

    def _repr_html_(self) -> str:
        return trace_html(self.trace, self.frames, fragment=True)


def explorer_data(
    trace: Trace, frames: FrameSource, finder: Finder | None = None
) -> tuple[Data, dict[str, str]]:
    """Build the input of the front end.

    Args:
        trace: The trace, finished or not.
        frames: The source of pixels.
        finder: As for `explore`.

    Returns:
        The trace as plain JSON data, and the pictures as data URLs by the names that the data uses.
    """
    if finder and not _has_same_video(trace, finder):
        finder = None
    builder = _Builder(trace, Pictures(frames), finder)
    data = builder.build()
    return data, _select_pictures(builder.pictures.urls())


def _select_pictures(urls: dict[str, str]) -> dict[str, str]:
    """Select the pictures that fit into a page's budget: the initial frames first, then call by call."""
    room = BUDGET
    kept = {}
    for name, url in urls.items():
        room -= len(url)
        if room >= 0:
            kept[name] = url
    return kept


def _has_same_video(trace: Trace, finder: Finder) -> bool:
    """Whether the video of a trace can be opened and has the same content."""
    try:
        return finder.library.probe(trace.video.path).info.digest == trace.video.digest
    except (Act2SeeError, OSError):
        return False


@dataclass(frozen=True, slots=True)
class _Ranking:
    """The candidates of a search."""

    rows: Sequence[tuple[float, float, FrameRef | None]]
    """The time in seconds, the score and, if known, the frame of each candidate."""
    tolerance: float
    """Two times count as the same if they differ by at most this many seconds."""
    about: str
    """The origin of the candidates, in words."""

    def has_time(self, times: Iterable[float], seconds: float) -> bool:
        """Whether `seconds` is one of `times`, within the tolerance."""
        return any(abs(seconds - time) <= self.tolerance for time in times)


@dataclass(frozen=True, slots=True)
class _Builder:
    """Turns one trace into the front end's data."""

    trace: Trace
    pictures: Pictures
    finder: Finder | None

    def build(self) -> Data:
        trace = self.trace
        scale = Scale.of(trace)
        low, high = curve_range(trace)
        choice = trace.choice  # read once, because that takes time in proportion to the number of options
        return {
            "question": plain(trace.question.text[:_MAX_TEXT]),
            "earlier": [
                [_shorten(t, _MAX_TEXT) for t in (turn.question, turn.answer)]
                for turn in trace.question.earlier
            ],
            "options": [
                [option_label(place), plain(option), option == choice]
                for place, option in enumerate(trace.question.options)
            ],
            "file": plain(trace.video.name),
            "seconds": clock(trace.video.seconds, trace.video.seconds),
            "scale": {
                "seconds": scale.total,
                "low": low,
                "high": high,
                "ticks": [[tick, scale.label(tick)] for tick in scale.ticks(4)],
            },
            "initial": [self.frame(f) for f in trace.initial],
            "steps": list(self.steps()),
        }

    def steps(self) -> Iterator[Data]:
        """Yield a step for each text, call and answer. The result of a call is part of its step."""
        looks = iter(self.trace.looks)
        number = 0
        shown = list(self.trace.initial)
        for segment in self.trace.segments:
            if isinstance(segment, Text):
                text = _shorten(segment.text, _MAX_TEXT)
                yield {"kind": "text", "text": text, "author": segment.author}
            elif isinstance(segment, Answer):
                yield self.answer(segment)
            elif isinstance(segment, Call):
                number += 1
                _, result = next(looks)
                first = len(shown) - len(self.trace.initial) + 1
                yield self.call(segment, result, shown) | {"call": number, "first": first}
                shown += result.frames if result else ()

    def answer(self, answer: Answer) -> Data:
        choice = self.trace.choice
        shown = choice if choice != answer.body.strip() else None
        return {
            "kind": "answer",
            "text": _shorten(answer.body, _MAX_TEXT),
            "choice": plain(shown) if shown else None,
            "forced": answer.forced and not self.trace.refused,
        }

    def call(self, call: Call, result: Frames | None, shown: Sequence[FrameRef]) -> Data:
        """Return a call with its result.

        Args:
            call: The call.
            result: Its result, or None if it has none yet.
            shown: The frames in view before the call.
        """
        frames = result.frames if result else ()
        return {
            "kind": call_kind(call, result),
            "tag": plain(call.tag),
            "query": _shorten(call.query, _MAX_QUERY),
            "notes": [[plain(title), _shorten(words, _MAX_TEXT)] for title, words in _notes(call, result)],
            "took": f"took {result.seconds:.2f} s" if result and result.seconds > 0 else "",
            "came": self.result_line(call, frames),
            "frames": [self.frame(f) for f in frames],
            **self.search(call, result, shown),
        }

    def result_line(self, call: Call, frames: Sequence[FrameRef]) -> str:
        """Return the result in a few words, for the call's line in the chain."""
        if call.outcome != "ok":
            return "not run"
        if not frames:
            return "no frame"
        total = self.trace.video.seconds
        words = []
        for frame in frames[:_LISTED]:
            words.append("imagined" if frame.imagined else clock(frame.seconds, total))
        if len(frames) > _LISTED:
            words.append("…")
        return ", ".join(words)

    def search(self, call: Call, result: Frames | None, shown: Sequence[FrameRef]) -> Data:
        """Return the curve of a call's search, and its candidates; empty if no curve was kept."""
        if result is None or result.curve is None:
            return {"curve": None, "best": None, "candidates": [], "ranked": ""}
        curve = result.curve
        query = (result.review.query if result.review else "") or call.query
        ranking = self.index_ranking(query) or _curve_ranking(curve)
        return {
            "curve": {
                "start": curve.start,
                "step": curve.step,
                "values": [_json_number(v) for v in curve.values],
            },
            "best": _json_number(max(finite(curve.values), default=math.nan)),
            "candidates": self.candidates(ranking, result, curve, shown),
            "ranked": ranking.about,
        }

    def index_ranking(self, query: str) -> _Ranking | None:
        """Rank the frames of the video for a query with the index; None without a finder."""
        if self.finder is None:
            return None
        path = self.trace.video.path
        try:
            hits = self.finder.find(path, query, k=CANDIDATES).hits
            frames = self.finder.library.pictures(path, [h.frame for h in hits])
        except Act2SeeError as e:
            log.info("the candidates of %r are the peaks of its curve: %s", query[:80], e)
            return None
        rows = [(h.seconds, h.score, frame) for h, frame in zip(hits, frames, strict=True)]
        return _Ranking(rows, 1e-3, "The frames that the index ranks best for this query.")

    def candidates(
        self, ranking: _Ranking, result: Frames, curve: Curve, shown: Sequence[FrameRef]
    ) -> list[Data]:
        """Return the chosen frames and the other candidates, best first."""
        chosen: dict[float, tuple[float, FrameRef | None]] = {}
        for frame in result.frames:
            source = frame.anchor or frame
            chosen[source.seconds] = curve_score(frame, curve), source
        others: dict[float, tuple[float, FrameRef | None]] = {}
        for seconds, score, candidate in ranking.rows:
            if not ranking.has_time(chosen, seconds):
                others[seconds] = score, candidate
        seen = [f.seconds for f in shown if not f.imagined]
        mark = "the anchor" if any(f.imagined for f in result.frames) else "chosen"
        rows = []
        for seconds, (score, picture) in sorted((others | chosen).items(), key=lambda row: -row[1][0]):
            row = self.candidate(seconds, score, picture)
            if seconds in chosen:
                row |= {"state": "chosen", "mark": mark}
            elif ranking.has_time(seen, seconds):
                row |= {"state": "seen", "mark": "shown before"}
            rows.append(row)
        return rows

    def candidate(self, seconds: float, score: float, picture: FrameRef | None) -> Data:
        """Return a candidate that is neither chosen nor seen."""
        return {
            "seconds": _json_number(seconds),
            "at": clock(seconds, self.trace.video.seconds),
            "score": _json_number(score),
            "state": "",
            "mark": "",
            "frame": self.frame(picture) if picture else None,
        }

    def frame(self, frame: FrameRef) -> Data:
        """Return a frame, with its anchor if it was generated."""
        return {
            "picture": self.pictures.name(frame),
            "seconds": _json_number(frame.anchor_seconds),
            "at": clock(frame.seconds, self.trace.video.seconds),
            "imagined": frame.imagined,
            "width": frame.width,
            "height": frame.height,
            "facts": [_shorten(fact, _MAX_QUERY) for fact in frame.facts],
            "anchor": self.frame(frame.anchor) if frame.anchor else None,
        }


def _notes(call: Call, result: Frames | None) -> Iterator[tuple[str, str]]:
    """Yield a title and a text for each note on a call."""
    if call.outcome != "ok":
        yield "Not run", OUTCOMES[call.outcome]
    if result and result.review:
        review = result.review
        words = [review.decision, review.query, review.reason]
        yield f"{review.by} decided", " ".join(filter(None, words))
    if result and result.note:
        yield "Told the model", result.note


def _curve_ranking(curve: Curve) -> _Ranking:
    """Rank the local maxima of a curve."""
    values = [v if math.isfinite(v) else -math.inf for v in curve.values]
    peaks = []
    for i, value in enumerate(values):
        before = values[i - 1] if i > 0 else -math.inf
        after = values[i + 1] if i + 1 < len(values) else -math.inf
        if before < value >= after:
            peaks.append((curve.start + i * curve.step, value, None))
    peaks.sort(key=lambda peak: -peak[1])
    about = (
        "Peaks of the curve that the trace keeps; "
        "with a finder these are the frames that the index ranks best."
    )
    return _Ranking(peaks[:CANDIDATES], curve.step / 2, about)


def _json_number(value: float) -> float | None:
    """Return a rounded number, or None for NaN and infinities, which JSON cannot hold."""
    return round(value, 4) if math.isfinite(value) else None


def _shorten(text: str, longest: int) -> str:
    return plain(shorten_text(text, longest))


@cache
def _widget() -> Callable[..., Any]:
    """The widget's class. Raises `ImportError` without anywidget."""
    import anywidget
    import traitlets

    class TraceExplorer(anywidget.AnyWidget):
        _esm = _asset("explorer.js")
        _css = f"{stylesheet()}\n{_asset('explorer.css')}"
        data = traitlets.Dict().tag(sync=True)
        pictures = traitlets.Dict().tag(sync=True)
        at = traitlets.Int(0, min=0).tag(sync=True)
        call = traitlets.Int(0, min=0).tag(sync=True)

        def __init__(self, page: StaticTrace, **traits: Any) -> None:
            self._page = page
            super().__init__(**traits)

        def __repr__(self) -> str:
            return f"TraceExplorer({self._page.trace.id}, {len(self.data['steps'])} steps)"

        def _repr_mimebundle_(self, **kwargs: Any) -> Any:
            # A notebook without a kernel (a web page, a static export) shows the page. Others prefer the
            # widget.
            data, metadata = super()._repr_mimebundle_(**kwargs) or ({}, {})
            return {**data, "text/html": self._page._repr_html_()}, metadata

    return TraceExplorer


def _asset(name: str) -> str:
    return files("act2see.trace").joinpath(name).read_text(encoding="utf-8")
