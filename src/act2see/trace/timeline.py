"""The timeline of a clip, with the initial and the returned frames, and the curve of each search.

Places are in percent of the width and in pixels of the height, so text keeps its size on every screen without
a script; only curves are stretched. Real and imagined frames have separate rows of markers, and more rows if
markers would overlap. All curves of a trace share one vertical scale, so that a search without a match does
not look like one with a match.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from act2see.tools.frames import Curve, FrameRef
from act2see.trace.markup import Html, el
from act2see.trace.record import Frames, TraceRecord

_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
"""Possible distances between two ticks of the axis, in seconds."""
_BASE = 24
"""The distance from the top to the axis, in pixels."""
_LANE = 22
"""The height of a row of markers, in pixels."""
_CURVE = 64
"""The height of a curve, in pixels."""
_OVERLAP = 6.5
"""Markers closer than this, in percent, would overlap on a phone."""
_MAX_LANES = 6
"""The maximum number of rows of markers. In the last one markers may overlap."""

Numbered = tuple[int, FrameRef]
"""A returned frame with its number, from 1."""


def clock(seconds: float, total: float) -> str:
    """Format a time in a clip of `total` seconds: `3.7 s`, `1:03.7`, `1:02:03`."""
    if not math.isfinite(seconds):
        return "?"
    if total < 60 and seconds < 60:
        return f"{seconds:.1f} s"
    tenths = round(max(0.0, seconds) * 10)
    minutes, rest = divmod(tenths, 600)
    if minutes < 60 and total < 3600:
        return f"{minutes}:{rest // 10:02d}.{rest % 10}"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest // 10:02d}"


def count(n: int, what: str) -> str:
    """Format a count: `1 frame`, `2 frames`."""
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def finite(values: Iterable[float]) -> list[float]:
    """Return the values without NaN and infinities."""
    return [value for value in values if math.isfinite(value)]


@dataclass(frozen=True, slots=True)
class Scale:
    """The horizontal scale, from seconds to percent."""

    total: float
    """The time at the right end, in seconds."""

    @classmethod
    def of(cls, trace: TraceRecord) -> Scale:
        """Return a scale that includes every frame of a trace."""
        times = [trace.video.seconds, *(frame.anchor_seconds for frame in trace.shown)]
        longest = max(finite(times), default=0.0)
        return cls(longest if longest > 0 else 1.0)

    def at(self, seconds: float) -> float:
        """Return the place of a time, in percent."""
        share = seconds / self.total if math.isfinite(seconds) else 0.0
        return round(100 * min(1.0, max(0.0, share)), 3)

    def ticks(self, at_most: int) -> list[float]:
        """Return round times from 0 to the end, in seconds, with at most `at_most` steps between them."""
        hours = 3600 * math.ceil(self.total / at_most / 3600)
        step = next((s for s in _STEPS if self.total / s <= at_most), hours)
        return [i * step for i in range(int(self.total / step + 1e-9) + 1)]

    def label(self, tick: float) -> str:
        """Return the text of a tick."""
        if self.total < 60:
            return f"{tick:g} s"
        return clock(tick, self.total).partition(".")[0]


def curve_range(trace: TraceRecord) -> tuple[float, float]:
    """Return the lowest and highest value of all curves of a trace; zeros without curves."""
    values: list[float] = []
    for segment in trace.segments:
        if isinstance(segment, Frames) and segment.curve:
            values += finite(segment.curve.values)
    return min(values, default=0.0), max(values, default=0.0)


def curve_score(frame: FrameRef, curve: Curve) -> float:
    """Return the similarity by which a frame was chosen; if it is unknown, the curve's value at its time."""
    if frame.score is not None and math.isfinite(frame.score):
        return frame.score
    place = (frame.anchor_seconds - curve.start) / curve.step if curve.step else 0.0
    if not curve.values or not math.isfinite(place):
        return 0.0
    return curve.values[min(len(curve.values) - 1, max(0, round(place)))]


def timeline(trace: TraceRecord, links: bool) -> Html:
    """Return the timeline and its key. Returned frames are numbered in order.

    Args:
        trace: The trace, finished or not.
        links: Whether markers are links to `#frame-N`.
    """
    numbered = list(enumerate(trace.returned, start=1))
    real = [(n, frame) for n, frame in numbered if not frame.imagined]
    imagined = [(n, frame) for n, frame in numbered if frame.imagined]
    keys = []
    if trace.initial:
        keys.append(_key("given", f"{count(len(trace.initial), 'frame')} given at the start"))
    if real:
        keys.append(_key("real", f"{len(real)} retrieved"))
    if imagined:
        keys.append(_key("imagined", f"{len(imagined)} imagined, marked at the real frame it was made from"))
    return el(
        "figure",
        el("div", _line(trace, real, imagined, links), class_="axis"),
        el("figcaption", keys, class_="keys") if keys else None,
        class_="timeline",
    )


def _key(kind: str, words: str) -> Html:
    return el("span", el("i", class_=f"key {kind}", aria_hidden="true"), words)


def _line(trace: TraceRecord, real: Sequence[Numbered], imagined: Sequence[Numbered], links: bool) -> Html:
    """The axis with its markers, which are drawn last, so that nothing covers them."""
    scale = Scale.of(trace)
    parts = [_initial_mark(frame, scale) for frame in trace.initial]
    markers: list[Html] = []
    top = _BASE
    for kind, frames in (("real", real), ("imagined", imagined)):
        lanes = _lanes(frames, scale)
        for (n, frame), lane in zip(frames, lanes, strict=True):
            y = top + _LANE * lane + 16
            x = f"{scale.at(frame.anchor_seconds)}%"
            parts.append(el("line", x1=x, x2=x, y1=_BASE, y2=y - 8, class_=f"stem {kind}"))
            markers.append(_marker(n, frame, scale, y, kind, links))
        top += _LANE * (1 + max(lanes, default=-1))
    foot = top + 24
    parts += _ticks(scale, _BASE, foot - 2, at_most=6)
    words = [
        f"Timeline of {clock(scale.total, scale.total)}",
        f"{count(len(trace.initial), 'frame')} given at the start",
        *(_marker_words(n, frame, scale, "") for n, frame in (*real, *imagined)),
    ]
    return _drawing([*parts, *markers], foot + 2, "; ".join(words), "group" if links else "img")


def _initial_mark(frame: FrameRef, scale: Scale) -> Html:
    x = f"{scale.at(frame.anchor_seconds)}%"
    title = el("title", clock(frame.seconds, scale.total))
    return el("line", title, x1=x, x2=x, y1=6, y2=_BASE, class_="given")


def _marker(n: int, frame: FrameRef, scale: Scale, y: int, kind: str, links: bool) -> Html:
    """A numbered disc at the height `y`."""
    x = f"{scale.at(frame.anchor_seconds)}%"
    words = _marker_words(n, frame, scale, ":")
    disc = el("circle", el("title", words), cx=x, cy=y, r=8, class_=kind)
    marker = [disc, el("text", str(n), x=x, y=y + 3.5, class_=f"in {kind}")]
    return el("a", marker, href=f"#frame-{n}", aria_label=words) if links else el("g", marker)


def _marker_words(n: int, frame: FrameRef, scale: Scale, colon: str) -> str:
    return f"frame {n}{colon} {frame.origin} at {clock(frame.anchor_seconds, scale.total)}"


def _drawing(parts: Sequence[Html], height: float, label: str, role: str = "img") -> Html:
    # The height is given twice: a notebook's own rule for `svg` overrides the attribute, not the style.
    style = f"height:{height}px"
    return el("svg", parts, width="100%", height=height, style=style, role=role, aria_label=label)


def _ticks(scale: Scale, base: float, foot: float, at_most: int) -> list[Html]:
    """The axis at the height `base` and its labels at `foot`."""
    parts = [el("line", x1=0, x2="100%", y1=base, y2=base, class_="base")]
    for tick in scale.ticks(at_most):
        x = f"{scale.at(tick)}%"
        parts.append(el("line", x1=x, x2=x, y1=base, y2=base + 4, class_="base"))
        parts.append(el("text", scale.label(tick), x=x, y=foot))
    return parts


def _lanes(frames: Sequence[Numbered], scale: Scale) -> list[int]:
    """Return for each marker the first row in which it overlaps no other, or the last row."""
    taken: list[list[float]] = [[] for _ in range(_MAX_LANES)]
    lanes = []
    for _, frame in frames:
        x = scale.at(frame.anchor_seconds)
        free = [i for i, places in enumerate(taken) if all(abs(x - other) >= _OVERLAP for other in places)]
        lane = free[0] if free else _MAX_LANES - 1
        taken[lane].append(x)
        lanes.append(lane)
    return lanes


def curve(trace: TraceRecord, segment: Frames) -> Html | None:
    """Return the curve of a call's search, with the chosen frames; None if no curve was kept."""
    if segment.curve is None:
        return None
    scale = Scale.of(trace)
    low, high = curve_range(trace)
    parts = [_curve_line(segment.curve, scale, low, high), *_ticks(scale, _CURVE, _CURVE + 18, at_most=3)]
    chosen = []
    for frame in segment.frames:
        kind = "imagined" if frame.imagined else "real"
        score = curve_score(frame, segment.curve)
        words = f"{'anchor' if frame.imagined else 'chosen'} at {clock(frame.anchor_seconds, scale.total)}"
        chosen.append(words)
        x = f"{scale.at(frame.anchor_seconds)}%"
        y = _height(score, low, high)
        title = el("title", f"{words}, similarity {score:.2f}")
        parts.append(el("line", x1=x, x2=x, y1=y, y2=_CURVE, class_=f"stem {kind}"))
        parts.append(el("circle", title, cx=x, cy=y, r=4.5, class_=f"dot {kind}"))
    label = f"Similarity to the query over the clip: {'; '.join(chosen) or 'nothing was chosen'}"
    best = max(finite(segment.curve.values), default=0.0)
    return el(
        "figure",
        el("div", _drawing(parts, _CURVE + 22, label), class_="axis"),
        el("figcaption", f"similarity to the query, at most {best:.2f}", class_="muted"),
        class_="curve",
    )


def _curve_line(curve: Curve, scale: Scale, low: float, high: float) -> Html:
    """The line of a curve and the area below it, drawn 1000 units wide and stretched to the actual width."""
    points = []
    for i, value in enumerate(curve.values):
        if math.isfinite(value):
            points.append((10 * scale.at(curve.start + i * curve.step), _height(value, low, high)))
    if len(points) == 1:
        points = [(0.0, points[0][1]), (1000.0, points[0][1])]
    line = " ".join(f"{x:g},{y:g}" for x, y in points)
    area = f"{points[0][0]:g},{_CURVE} {line} {points[-1][0]:g},{_CURVE}" if points else ""
    return el(
        "svg",
        el("polygon", points=area, class_="area"),
        el("polyline", points=line, class_="trail", vector_effect="non-scaling-stroke"),
        width="100%",
        height=_CURVE,
        style=f"height:{_CURVE}px",
        viewBox=f"0 0 1000 {_CURVE}",
        preserveAspectRatio="none",
    )


def _height(value: float, low: float, high: float) -> float:
    """Return the place of a value in a curve, in pixels from the top."""
    share = (value - low) / (high - low) if high > low else 0.5
    return round(5 + (_CURVE - 9) * (1 - min(1.0, max(0.0, share))), 2)
