"""How a query names a moment: what `zoom` and `clip` read of it.

A time is `3.7 seconds`, `3.7 s` or `1:03.7`; a frame is `last frame`, `first frame`, `imagined frame`, `frame
3` (the third that was shown) or a time. Nothing else is a number that counts. What was understood is taken
out of the text, so that what is left can be read for something else.
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
# A frame is told to the model to a tenth of a second, and a model rounds further.
_NEAR = 0.5


def times_in(text: str) -> tuple[list[float], str]:
    """The times that a text names, in seconds and in its order, and the text without them. `2 to 5 seconds`
    are two."""
    found: list[float] = []

    def take(match: re.Match[str]) -> str:
        hours, minutes, rest, plain = match.groups()
        found.append(float(plain) if plain else int(hours or 0) * 3600 + int(minutes) * 60 + float(rest))
        return " "

    return found, _TIME.sub(take, _SPAN.sub(r"\1 s to ", text))


def frame_in(text: str, shown: Sequence[FrameRef]) -> tuple[FrameRef | str, str]:
    """The frame among `shown` that a text names, or a sentence that says why there is none; and the rest of
    the text.

    Without a name it is the last one. Two that are as near to a time: the whole frame before a part of it.
    """
    if not shown:
        return "No frame has been shown yet.", text
    times, rest = times_in(text)
    if times:
        real = [f for f in shown if not f.imagined] or list(shown)
        best = min(
            real, key=lambda f: (round(abs(f.seconds - times[0]), 3), isinstance(f.provenance, Cropped))
        )
        if abs(best.seconds - times[0]) <= _NEAR:
            return best, rest
        near = sorted({f.seconds for f in sorted(real, key=lambda f: abs(f.seconds - times[0]))[:3]})
        return (
            f"No frame at {times[0]:.1f} seconds has been shown; the nearest are at {_listed(near)} seconds.",
            rest,
        )
    if nth := _NTH.search(text):
        rest = f"{text[: nth.start()]} {text[nth.end() :]}"
        number = int(nth[1])
        if not 1 <= number <= len(shown):
            return f"There is no frame {number}: {len(shown)} have been shown.", rest
        return shown[number - 1], rest
    if not (named := _NAMED.search(text)):
        return shown[-1], text
    rest = f"{text[: named.start()]} {text[named.end() :]}"
    if named[1].lower() in ("imagined", "generated"):
        imagined = [f for f in shown if f.imagined]
        return (imagined[-1], rest) if imagined else ("No imagined frame has been shown.", rest)
    return shown[0 if named[1].lower() == "first" else -1], rest


def _listed(seconds: Sequence[float]) -> str:
    *some, last = [f"{s:.1f}" for s in seconds]
    return f"{', '.join(some)} and {last}" if some else last
