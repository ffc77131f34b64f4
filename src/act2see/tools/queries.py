"""Parsing of times and frames in the text of a query, for `zoom` and `clip`.

A time is `3.7 seconds`, `3.7 s` or `1:03.7`. A frame is a time, or `last frame`, `first frame`, `imagined
frame` or `frame 3` (the third that was shown). Other numbers are ignored. Each function also returns the text
without the words that it has read, so that the caller can parse the rest.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from act2see.tools.frames import Cropped, FrameRef

_NUMBER = r"(?<![\d.,:])\d{1,6}(?:\.\d+)?"
_UNIT = r"\s*(?:seconds?|secs?|s)\b"
_CLOCK = r"(?<![\d.:])(?:(\d{1,2}):)?(\d{1,3}):(\d\d(?:\.\d+)?)(?![\d:])"
_TIME = re.compile(rf"<?(?:{_CLOCK}(?:{_UNIT})?|({_NUMBER}){_UNIT})>?", re.I)
_SPAN = re.compile(rf"({_NUMBER})\s*(?:-|\u2013|to|and|until)\s*(?=\d{{1,6}}(?:\.\d+)?{_UNIT})", re.I)
_NTH = re.compile(r"\bframe\s*(?:number|no\.?|#)?\s*(\d{1,4})(?!\d|[.,:]\d)", re.I)
_NAMED = re.compile(
    r"\b(last|latest|newest|previous|current|this|first|imagined|generated)\b(?:\s+frame\b)?", re.I
)
# The model reads a frame's time to a tenth of a second, and may round further.
_NEAR = 0.5


def find_times(text: str) -> tuple[list[float], str]:
    """Return the times in a text, in seconds and in the order of the text, and the text without them.

    `2 to 5 seconds` contains two times.
    """
    found: list[float] = []

    def take(match: re.Match[str]) -> str:
        hours, minutes, rest, plain = match.groups()
        if plain:
            found.append(float(plain))
        else:
            found.append(int(hours or 0) * 3600 + int(minutes) * 60 + float(rest))
        return " "

    return found, _TIME.sub(take, _SPAN.sub(r"\1 s to ", text))


def find_frame(text: str, shown: Sequence[FrameRef]) -> tuple[FrameRef | str, str]:
    """Find the frame that a text names; without a name, the last frame.

    Args:
        text: A text that may name a frame by a time, a number (`frame 3`) or a word (`the last frame`).
        shown: The frames to choose from, in the order in which they were shown.

    Returns:
        The frame, or a sentence for the model if the named frame does not exist; and the text without the
        name.
    """
    if not shown:
        return "No frame has been shown yet.", text
    times, rest = find_times(text)
    if times:
        return _frame_at(times[0], shown), rest
    if nth := _NTH.search(text):
        number = int(nth[1])
        rest = _cut_out(text, nth)
        if not 1 <= number <= len(shown):
            return f"There is no frame {number}: {len(shown)} have been shown.", rest
        return shown[number - 1], rest
    named = _NAMED.search(text)
    if named is None:
        return shown[-1], text
    rest = _cut_out(text, named)
    match named[1].lower():
        case "imagined" | "generated":
            imagined = [frame for frame in shown if frame.imagined]
            return (imagined[-1] if imagined else "No imagined frame has been shown."), rest
        case "first":
            return shown[0], rest
        case _:
            return shown[-1], rest


def _frame_at(seconds: float, shown: Sequence[FrameRef]) -> FrameRef | str:
    """Return the frame nearest to a time, or a sentence if none is near. A whole frame precedes its parts."""
    real = [frame for frame in shown if not frame.imagined] or list(shown)

    def distance(frame: FrameRef) -> tuple[float, bool]:
        return round(abs(frame.seconds - seconds), 3), isinstance(frame.provenance, Cropped)

    by_distance = sorted(real, key=distance)
    if abs(by_distance[0].seconds - seconds) <= _NEAR:
        return by_distance[0]
    near = sorted({frame.seconds for frame in by_distance[:3]})
    return (
        f"No frame at {seconds:.1f} seconds has been shown; the nearest are at {_join_times(near)} seconds."
    )


def _cut_out(text: str, match: re.Match[str]) -> str:
    return f"{text[: match.start()]} {text[match.end() :]}"


def _join_times(seconds: Sequence[float]) -> str:
    """Return `1.0, 2.0 and 3.0`."""
    *some, last = [f"{s:.1f}" for s in seconds]
    return f"{', '.join(some)} and {last}" if some else last
