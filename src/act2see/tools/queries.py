"""Times and frames in the text of a query, for `zoom` and `clip`.

A time is `3.7 seconds`, `3.7 s` or `1:03.7`; a frame is `last frame`, `first frame`, `imagined frame`, `frame
3` (the third that was shown) or a time. Other numbers are left alone. What was read is taken out of the text,
so that the rest can be read for something else.
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


def times_in(text: str) -> tuple[list[float], str]:
    """The times that a text names, in seconds and in its order, and the text without them.

    `2 to 5 seconds` are two.
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


def frame_in(text: str, shown: Sequence[FrameRef]) -> tuple[FrameRef | str, str]:
    """The frame that a text names, and the rest of the text. Without a name it is the last frame.

    Args:
        text: Names a frame by a time, a number (`frame 3`) or a word (`the last frame`).
        shown: The frames to choose from, in the order in which they were shown.

    Returns:
        The frame, or a sentence for the model if no frame is meant; and the text without the name.
    """
    if not shown:
        return "No frame has been shown yet.", text
    times, rest = times_in(text)
    if times:
        return _frame_at(times[0], shown), rest
    if nth := _NTH.search(text):
        number = int(nth[1])
        rest = _without(text, nth)
        if not 1 <= number <= len(shown):
            return f"There is no frame {number}: {len(shown)} have been shown.", rest
        return shown[number - 1], rest
    named = _NAMED.search(text)
    if named is None:
        return shown[-1], text
    rest = _without(text, named)
    match named[1].lower():
        case "imagined" | "generated":
            imagined = [frame for frame in shown if frame.imagined]
            return (imagined[-1] if imagined else "No imagined frame has been shown."), rest
        case "first":
            return shown[0], rest
        case _:
            return shown[-1], rest


def _frame_at(seconds: float, shown: Sequence[FrameRef]) -> FrameRef | str:
    """The frame nearest to a time; of two that are as near, the whole frame before a part of it."""
    real = [frame for frame in shown if not frame.imagined] or list(shown)

    def distance(frame: FrameRef) -> tuple[float, bool]:
        return round(abs(frame.seconds - seconds), 3), isinstance(frame.provenance, Cropped)

    by_distance = sorted(real, key=distance)
    if abs(by_distance[0].seconds - seconds) <= _NEAR:
        return by_distance[0]
    near = sorted({frame.seconds for frame in by_distance[:3]})
    return f"No frame at {seconds:.1f} seconds has been shown; the nearest are at {_listed(near)} seconds."


def _without(text: str, match: re.Match[str]) -> str:
    return f"{text[: match.start()]} {text[match.end() :]}"


def _listed(seconds: Sequence[float]) -> str:
    *some, last = [f"{s:.1f}" for s in seconds]
    return f"{', '.join(some)} and {last}" if some else last
