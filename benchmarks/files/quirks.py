"""The matrix, second half: odd times, sound, cuts, and damage."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

from benchmarks.files.basics import film
from benchmarks.files.cases import Case
from benchmarks.files.changes import (
    damage_media,
    edit,
    flip,
    keep,
    lose,
    repeat_tags,
    restamp,
    retag,
    zero,
)

_B = {"g": "12", "bf": "2"}
_P = {"g": "12", "bf": "0"}
_ORDERS = {"p": _P, "b": _B}
_WRAP = 2**33 / 90_000  # seconds after which the time of MPEG-TS starts again
_ANY_CUT = (
    "mkv-h264 mkv-vp9 webm-vp8 ts-h264 ts-mpeg2 avi-mpeg4 avi-mjpeg flv-h264 mpg-mpeg2 ogg-vp8 nut-h264"
)


def _split(pairs: str) -> Iterator[tuple[str, str, str]]:
    for pair in pairs.split():
        suffix, codec = pair.split("-")
        yield pair, suffix, codec


def times() -> Iterator[Case]:
    """Films that do not start at 0, edit lists, holes, repeated timestamps, clocks that start again."""
    for pair, suffix, codec in _split(
        "mp4-h264 mkv-h264 ts-h264 flv-h264 mpg-mpeg2 webm-vp9 mov-mpeg4 nut-h264"
    ):
        for start in (0.5, 10.0):
            yield Case("start", f"{pair}-at-{start:g}", film(suffix, codec, start=start))
    yield Case("start", "ts-h264-at-day", film("ts", "h264", start=80_000.0))
    yield Case("start", "mkv-h264-at-year", film("mkv", "h264", start=31e6, options=_P))
    for pair, suffix, codec in _split("mp4-h264 mov-h264 mkv-h264"):
        shift = {"avoid_negative_ts": "disabled"}
        for name, options in _ORDERS.items():
            made = film(suffix, codec, start=-0.4, options=options, mux=shift)
            yield Case("start", f"{pair}-negative-{name}", made)
    for pair, suffix, codec in _split("mp4-h264 mov-h264 mp4-mpeg4 mp4-hevc"):
        for skipped in (0.28, 1.0):
            for name, options in _ORDERS.items() if codec != "hevc" else [("b", {})]:
                made = film(suffix, codec, options=options)
                yield Case("edit lists", f"{pair}-{name}-{skipped:g}", made, (edit(skipped),))
    for pair, suffix, codec in _split(
        "mp4-h264 mkv-h264 ts-h264 avi-h264 avi-mpeg4 flv-h264 mov-mpeg4 mpg-mpeg2"
    ):
        for name, options in _ORDERS.items():
            dropped = film(suffix, codec, options=options, dropped=(3, 4, 20, *range(40, 52)))
            yield Case("dropped", f"{pair}-{name}", dropped)
    for suffix in ("mkv",):
        for name, options in _ORDERS.items():
            for places in ((30,), (20, 40, 60), (1,), (74,)):
                made = film(suffix, "h264", options=options, repeated=places)
                yield Case("repeated", f"{suffix}-{name}-{places[0]}-{len(places)}", made)
    for tagged in ((30,), (10, 50)):
        tags = repeat_tags(tagged, {})
        yield Case("repeated", f"flv-{len(tagged)}", film("flv", "flv1"), (tags,))
    for name, stamps in {"far": {30: 37_600_000}, "back": {30: 0}, "last": {74: 37_600_000}}.items():
        yield Case("repeated", f"flv-{name}", film("flv", "flv1"), (repeat_tags((), stamps),))
    for name, by in {"same": -3600, "back": -90_000, "far": 90_000 * 4000, "hole": 90_000 * 20}.items():
        yield Case("repeated", f"ts-{name}", film("ts", "h264", options=_P), (restamp(30, by),))
        yield Case("repeated", f"ts-b-{name}", film("ts", "h264", options=_B), (restamp(30, by),))


def clocks() -> Iterator[Case]:
    """MPEG-TS and MPEG-PS whose clock wraps or is set anew, and joined files."""
    for pair, suffix, codec in _split("ts-h264 ts-mpeg2 ts-hevc ts-mpeg4"):
        for before in (1.0, 2.5):
            yield Case("clocks", f"{pair}-wrap-{before:g}", film(suffix, codec, start=_WRAP - before))
    one, two = film("ts", "h264", start=100.0), film("ts", "h264", first=75)
    faster = film("ts", "h264", first=75, rate=Fraction(30))
    yield Case("clocks", "ts-back", one, then=(two,))
    yield Case("clocks", "ts-same", replace(one, start=0.0), then=(two,))
    yield Case("clocks", "ts-25-30", replace(one, start=0.0), then=(faster,))
    yield Case("clocks", "ts-forward", replace(one, start=0.0), then=(replace(two, start=50_000.0),))
    third = film("ts", "h264", first=150)
    yield Case("clocks", "ts-three", one, then=(two, third))
    b = [film("ts", "h264", first=n, options=_B) for n in (0, 75)]
    yield Case("clocks", "ts-same-b", b[0], then=(b[1],))
    m = [film("ts", "mpeg2", first=n, options=_B) for n in (0, 75)]
    yield Case("clocks", "ts-same-mpeg2", m[0], then=(m[1],))
    p = [film("mpg", "mpeg2", first=n) for n in (0, 75)]
    yield Case("clocks", "mpg-same", p[0], then=(p[1],))
    h = [film("h264", "h264", first=n) for n in (0, 75)]
    yield Case("clocks", "raw-h264", h[0], then=(h[1],))
    v = [film("m2v", "mpeg2", first=n) for n in (0, 75)]
    yield Case("clocks", "raw-mpeg2", v[0], then=(v[1],))
    small = film("ts", "h264", first=75, width=144, height=96)
    yield Case("clocks", "ts-other-size", replace(one, start=0.0), then=(small,))


def sounds() -> Iterator[Case]:
    """Sound that starts with the picture, before it, or after it."""
    for pair, suffix, codec in _split(
        "mp4-h264 mov-h264 mkv-h264 ts-h264 flv-h264 webm-vp9 mpg-mpeg2 avi-mpeg4"
    ):
        for name, start, sound in (("with", 0.0, 0.0), ("before", 0.6, 0.0), ("after", 0.0, 0.6)):
            made = film(suffix, codec, start=start, sound=sound)
            yield Case("sound", f"{pair}-{name}", made)
    for suffix in ("ts", "mkv"):
        made = film(suffix, "h264", start=20.5, sound=20.0)
        yield Case("sound", f"{suffix}-h264-later", made)


def cuts() -> Iterator[Case]:
    """Files of which the end or the start is missing."""
    for pair, suffix, codec in _split(_ANY_CUT):
        for last in (0.9, 0.5):
            yield Case("cuts", f"{pair}-to-{last}", film(suffix, codec), (keep(0, last),))
    for pair, suffix, codec in _split("ts-h264 ts-mpeg2 mpg-mpeg2 h264-h264 m2v-mpeg2 ts-hevc"):
        for first in (0.15, 0.6):
            yield Case("cuts", f"{pair}-from-{first}", film(suffix, codec, options=_P), (keep(first, 1),))
    front = {"movflags": "faststart"}
    pieces = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    for name, mux in {"front": front, "pieces": pieces, "back": {}}.items():
        for last in (0.9, 0.5):
            made = film("mp4", "h264", options=_B, mux=mux)
            yield Case("cuts", f"mp4-{name}-to-{last}", made, (keep(0, last),))
    for suffix, codec in (("gif", "gif"), ("apng", "apng"), ("mov", "prores")):
        mux = front if suffix == "mov" else {}
        yield Case("cuts", f"{suffix}-to-0.6", film(suffix, codec, mux=mux), (keep(0, 0.6),))
    refresh = {"bf": "0", "x264-params": "intra-refresh=1:keyint=12"}
    yield Case("cuts", "ts-refresh-from-0.3", film("ts", "h264", options=refresh), (keep(0.3, 1),))
    for suffix, codec in (("mp4", "h264"), ("mkv", "h264"), ("ts", "h264"), ("gif", "gif")):
        yield Case("cuts", f"{suffix}-nothing", film(suffix, codec), (keep(0, 0.0005),))


def damage() -> Iterator[Case]:
    """Bytes that are wrong, and packets that are lost."""
    for pair, suffix, codec in _split(
        "mkv-h264 ts-h264 avi-mpeg4 flv-h264 mpg-mpeg2 webm-vp9 mkv-mpeg4 ts-mpeg2"
    ):
        yield Case("damage", f"{pair}-zero", film(suffix, codec, options={"g": "12"}), (zero(0.4, 0.45),))
        flips = flip(12, 0.3, 0.8)
        yield Case("damage", f"{pair}-flip", film(suffix, codec, options={"g": "12"}), (flips,))
    for pair, suffix, codec in _split("mp4-h264 mov-mpeg4 mp4-hevc mov-mjpeg mp4-vp9 mov-prores"):
        yield Case("damage", f"{pair}-zero", film(suffix, codec), (damage_media(0.4, 0.45),))
    for name, options in _ORDERS.items():
        for codec in ("h264", "mpeg2", "mpeg4"):
            lost = (lose(9),)
            yield Case("damage", f"ts-{codec}-{name}-lost", film("ts", codec, options=options), lost)
    yield Case("damage", "ts-h264-hole", film("ts", "h264", options=_B), (lose(1),))
    for name, scale in {"zero": 0, "huge": 2**31 - 1}.items():
        change = retag(b"mvhd", 12, struct.pack(">I", scale))
        yield Case("damage", f"mp4-scale-{name}", film("mp4", "h264"), (change,))
    yield Case("damage", "mp4-first-key", film("mp4", "h264", options=_P), (damage_media(0.0, 0.02),))
