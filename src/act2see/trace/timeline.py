"""The clip as a line: what was seen at first, what was fetched, and how similar each moment was to a query.

Everything is placed in percent of the width and in pixels of the height, so text keeps its size on any screen
without a script; only curves are stretched. Real frames have a row of markers and imagined ones another, more
where markers would overlap. All curves of a trace share one vertical scale: a search that found nothing must
not look like one that did.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from act2see.tools.frames import Curve, FrameRef, Generated, Retrieved, Supplied
from act2see.trace.markup import Html, el
from act2see.trace.record import Frames, TraceRecord

_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
_LANE, _CURVE = 22, 64
# Markers closer than this, in percent, would overlap on a phone.
_APART = 6.5


def clock(seconds: float, total: float) -> str:
    """A time in a clip of `total` seconds: `3.7 s`, `1:03.7`, `1:02:03`."""
    if not math.isfinite(seconds):
        return "?"
    if total < 60 and seconds < 60:
        return f"{seconds:.1f} s"
    tenths = round(max(0.0, seconds) * 10)
    minutes, rest = divmod(tenths, 600)
    if minutes < 60 and total < 3600:
        return f"{minutes}:{rest // 10:02d}.{rest % 10}"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest // 10:02d}"


def spot(frame: FrameRef) -> float:
    """Where a frame stands on the line: for an imagined one, where its anchor does."""
    return frame.provenance.anchor.seconds if isinstance(frame.provenance, Generated) else frame.seconds


def count(n: int, what: str) -> str:
    """`1 frame`, `2 frames`."""
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


@dataclass(frozen=True, slots=True)
class Scale:
    """Seconds to percent."""

    total: float

    @classmethod
    def of(cls, trace: TraceRecord) -> Scale:
        times = [trace.video.seconds, *(spot(f) for f in trace.shown)]
        longest = max((t for t in times if math.isfinite(t)), default=0.0)
        return cls(longest if longest > 0 else 1.0)

    def at(self, seconds: float) -> float:
        share = seconds / self.total if math.isfinite(seconds) else 0.0
        return round(100 * min(1.0, max(0.0, share)), 3)

    def ticks(self, at_most: int) -> list[float]:
        step = next(
            (s for s in _STEPS if self.total / s <= at_most), 3600 * math.ceil(self.total / at_most / 3600)
        )
        return [i * step for i in range(int(self.total / step + 1e-9) + 1)]

    def label(self, tick: float) -> str:
        if self.total < 60:
            return f"{tick:g} s"
        return clock(tick, self.total).partition(".")[0]


def timeline(trace: TraceRecord, links: bool) -> Html:
    """The line and its key. Frames that came back are numbered in order; with `links`, markers lead to
    `#frame-N`."""
    scale = Scale.of(trace)
    came = list(enumerate(trace.shown[len(trace.initial) :], start=1))
    real = [(n, f) for n, f in came if not f.imagined]
    imagined = [(n, f) for n, f in came if f.imagined]
    key = [
        _key("given", f"{count(len(trace.initial), 'frame')} given at the start") if trace.initial else None,
        _key("real", f"{len(real)} retrieved") if real else None,
        _key("imagined", f"{len(imagined)} imagined, marked at the real frame it was made from")
        if imagined
        else None,
    ]
    return el(
        "figure",
        el("div", _line(trace, scale, real, imagined, links), class_="axis"),
        el("figcaption", (k for k in key if k), class_="keys") if any(key) else None,
        class_="timeline",
    )


def _how(frame: FrameRef) -> str:
    if isinstance(frame.provenance, Supplied):
        return "supplied by a person after the frame" if frame.imagined else "supplied by a person"
    return "imagined from the frame" if frame.imagined else "retrieved"


def _key(kind: str, words: str) -> Html:
    return el("span", el("i", class_=f"key {kind}", aria_hidden="true"), words)


def _line(
    trace: TraceRecord,
    scale: Scale,
    real: Sequence[tuple[int, FrameRef]],
    imagined: Sequence[tuple[int, FrameRef]],
    links: bool,
) -> Html:
    base = 24
    parts = []
    for f in trace.initial:
        x = f"{scale.at(spot(f))}%"
        parts.append(
            el("line", el("title", clock(f.seconds, scale.total)), x1=x, x2=x, y1=6, y2=base, class_="given")
        )
    top, markers = base, []
    for kind, frames in (("real", real), ("imagined", imagined)):
        placed = _lanes(frames, scale)
        for n, f, lane in placed:
            x, y = f"{scale.at(spot(f))}%", top + _LANE * lane + 16
            parts.append(el("line", x1=x, x2=x, y1=base, y2=y - 8, class_=f"stem {kind}"))
            words = f"frame {n}: {_how(f)} at {clock(spot(f), scale.total)}"
            disc = el("circle", el("title", words), cx=x, cy=y, r=8, class_=kind)
            marker = [disc, el("text", str(n), x=x, y=y + 3.5, class_=f"in {kind}")]
            markers.append(
                el("a", marker, href=f"#frame-{n}", aria_label=words) if links else el("g", marker)
            )
        top += _LANE * (1 + max((lane for _, _, lane in placed), default=-1))
    foot = top + 24
    parts += _ticks(scale, base, foot - 2, at_most=6)
    said = [
        f"Timeline of {clock(scale.total, scale.total)}",
        f"{count(len(trace.initial), 'frame')} given at the start",
    ]
    said += [f"frame {n} {_how(f)} at {clock(spot(f), scale.total)}" for n, f in (*real, *imagined)]
    return _drawing([*parts, *markers], foot + 2, "; ".join(said), "group" if links else "img")


def _drawing(parts: Sequence[Html], height: float, said: str, role: str = "img") -> Html:
    # The height twice: notebooks have a rule for every svg that an attribute does not overrule.
    return el(
        "svg", parts, width="100%", height=height, style=f"height:{height}px", role=role, aria_label=said
    )


def _ticks(scale: Scale, base: float, foot: float, at_most: int) -> list[Html]:
    """The axis at the height `base` and its labels at `foot`."""
    out = [el("line", x1=0, x2="100%", y1=base, y2=base, class_="base")]
    for tick in scale.ticks(at_most):
        x = f"{scale.at(tick)}%"
        out.append(el("line", x1=x, x2=x, y1=base, y2=base + 4, class_="base"))
        out.append(el("text", scale.label(tick), x=x, y=foot))
    return out


def _lanes(frames: Sequence[tuple[int, FrameRef]], scale: Scale) -> list[tuple[int, FrameRef, int]]:
    """Each marker in the first lane where it overlaps no other; beyond six lanes they may."""
    lanes: list[list[float]] = [[] for _ in range(6)]
    out = []
    for n, f in frames:
        x = scale.at(spot(f))
        lane = next(
            (i for i, taken in enumerate(lanes) if all(abs(x - other) >= _APART for other in taken)), 5
        )
        lanes[lane].append(x)
        out.append((n, f, lane))
    return out


def curve(trace: TraceRecord, segment: Frames) -> Html | None:
    """How similar the clip was to the query of this call, with what was chosen; None where no curve was
    kept."""
    if segment.curve is None:
        return None
    scale, curve = Scale.of(trace), segment.curve
    every = [
        v
        for s in trace.segments
        if isinstance(s, Frames) and s.curve
        for v in s.curve.values
        if math.isfinite(v)
    ]
    low, high = (min(every), max(every)) if every else (0.0, 0.0)
    points = [
        (10 * scale.at(curve.start + i * curve.step), _height(v, low, high))
        for i, v in enumerate(curve.values)
        if math.isfinite(v)
    ]
    if len(points) == 1:
        points = [(0.0, points[0][1]), (1000.0, points[0][1])]
    line = " ".join(f"{x:g},{y:g}" for x, y in points)
    area = f"{points[0][0]:g},{_CURVE} {line} {points[-1][0]:g},{_CURVE}" if points else ""
    parts = [
        el(
            "svg",
            el("polygon", points=area, class_="area"),
            el("polyline", points=line, class_="trail", vector_effect="non-scaling-stroke"),
            width="100%",
            height=_CURVE,
            style=f"height:{_CURVE}px",
            viewBox=f"0 0 1000 {_CURVE}",
            preserveAspectRatio="none",
        ),
        *_ticks(scale, _CURVE, _CURVE + 18, at_most=3),
    ]
    chosen = []
    for frame in segment.frames:
        kind, score = "imagined" if frame.imagined else "real", score_of(frame, curve)
        at = f"{'anchor' if frame.imagined else 'chosen'} at {clock(spot(frame), scale.total)}"
        chosen.append(at)
        x, y = f"{scale.at(spot(frame))}%", _height(score, low, high)
        parts.append(el("line", x1=x, x2=x, y1=y, y2=_CURVE, class_=f"stem {kind}"))
        parts.append(
            el(
                "circle",
                el("title", f"{at}, similarity {score:.2f}"),
                cx=x,
                cy=y,
                r=4.5,
                class_=f"dot {kind}",
            )
        )
    said = f"Similarity to the query over the clip: {'; '.join(chosen) or 'nothing was chosen'}"
    best = max((v for v in curve.values if math.isfinite(v)), default=0.0)
    return el(
        "figure",
        el("div", _drawing(parts, _CURVE + 22, said), class_="axis"),
        el("figcaption", f"similarity to the query, at most {best:.2f}", class_="muted"),
        class_="curve",
    )


def _height(value: float, low: float, high: float) -> float:
    share = (value - low) / (high - low) if high > low else 0.5
    return round(5 + (_CURVE - 9) * (1 - min(1.0, max(0.0, share))), 2)


def score_of(frame: FrameRef, curve: Curve) -> float:
    """The similarity with which a frame was chosen; where it was not kept, the curve's at that time."""
    p = frame.provenance
    known = p.score if isinstance(p, Retrieved) else p.anchor_score if isinstance(p, Generated) else None
    if known is not None and math.isfinite(known):
        return known
    place = (spot(frame) - curve.start) / curve.step if curve.step else 0.0
    return (
        curve.values[min(len(curve.values) - 1, max(0, round(place)))]
        if curve.values and math.isfinite(place)
        else 0.0
    )
