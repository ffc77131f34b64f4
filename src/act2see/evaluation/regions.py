"""Parts of a video and of a picture: intervals and boxes, read from text, and how far two of them agree.

An interval is a start and an end in seconds, however it is written: `[90, 150]`, `1:30-2:30`, "from 1 min
30 s to 2 min 30 s". A box is left, top, right, bottom. What cannot be meant (an end before the start, two
boxes where one is asked for) is not repaired: it is unreadable, and so wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from act2see.evaluation.quantities import to_plain_digits

Interval = tuple[float, float]
Box = tuple[float, float, float, float]

_NUMBER = r"\d+(?:\.\d+)?"
_HOURS = r"(?:hours?|hrs?|hr|h|小时|小時|時間|시간|часов|часа|час|ч)"
_MINUTES = r"(?:minutes?|minutos?|minuten?|mins?|min|m|'|分钟|分鐘|分|분|минут[аы]?|мин)"
_SECONDS = r"(?:seconds?|segundos?|secondes?|sekunden?|secs?|sec|s|\"|秒|초|секунд[аы]?|сек|\u0441)"
_END = r"(?![A-Za-z\u0400-\u04ff])"
_TIME = re.compile(
    rf"(?P<clock>(?:(?P<ch>\d+):)?(?P<cm>\d{{1,3}}):(?P<cs>\d{{2}}(?:[.,]\d+)?))(?!\d)"
    rf"|(?P<h>{_NUMBER})\s*{_HOURS}{_END}(?:\s*(?:and\s*)?(?P<hm>{_NUMBER})\s*{_MINUTES}{_END})?"
    rf"(?:\s*(?:and\s*)?(?P<hs>{_NUMBER})\s*{_SECONDS}{_END})?"
    rf"|(?P<m>{_NUMBER})\s*{_MINUTES}{_END}(?:\s*(?:and\s*)?(?P<ms>{_NUMBER})\s*{_SECONDS}{_END})?"
    rf"|(?P<s>{_NUMBER})\s*{_SECONDS}{_END}"
    rf"|(?P<bare>{_NUMBER})",
    re.IGNORECASE,
)
_TO = re.compile(
    r"[\s)>\]\"]*(?:-{1,2}>|-|\u2013|\u2014|~|\u223c|\u2192|\.\.+|to|until|till|through|thru|bis|a|à|al|"
    r"hasta|and|до|到|至|から|부터|"
    r"(?:and )?(?:end(?:s|ing)?|stop(?:s|ping)?)(?: (?:time|at|around))*\s*[:=]?)"
    r"[\s(<\[\"]*(?:t\s*=|the |second |timestamp )?\s*",
    re.IGNORECASE,
)
_IN_LIST = re.compile(r"\s*[,;]\s*")
_BOX_LIST = re.compile(
    rf"[\[(]\s*(-?{_NUMBER})\s*[,;\s]\s*(-?{_NUMBER})\s*[,;\s]\s*(-?{_NUMBER})\s*[,;\s]\s*(-?{_NUMBER})\s*[\])]"
)
_CORNERS = re.compile(
    rf"[(\[]\s*(-?{_NUMBER})\s*[,;\s]\s*(-?{_NUMBER})\s*[)\]][^()\[\]\d]{{0,40}}[(\[]\s*(-?{_NUMBER})\s*[,;\s]\s*(-?{_NUMBER})\s*[)\]]"
)
_KEYED = re.compile(
    rf"\b(x_?(?:min|max|[0-2])?|y_?(?:min|max|[0-2])?|width|height|w|h|left|top|right|"
    rf"bottom)\b[\"']?\s*[:=]?\s*(-?{_NUMBER})",
    re.IGNORECASE,
)
_NAMES = {
    "left": ("left", "xmin", "x1", "x0", "x"),
    "top": ("top", "ymin", "y1", "y0", "y"),
    "right": ("right", "xmax", "x2"),
    "bottom": ("bottom", "ymax", "y2"),
}


def read_intervals(text: str) -> tuple[Interval, ...] | None:
    """Return the intervals that a text names, in order of time; None if it names none, or an impossible
    one.
    """
    text = to_plain_digits(text)
    times = [(m.start(), m.end(), _seconds(m), m["bare"] is not None, _unit(m)) for m in _TIME.finditer(text)]
    pairs: list[tuple[int, int, bool]] = []
    n = 0
    while n < len(times) - 1:
        between = text[times[n][1] : times[n + 1][0]]
        before = text[: times[n][0]].rstrip().endswith(("[", "("))
        listed = bool(_IN_LIST.fullmatch(between)) and before and times[n][3] == times[n + 1][3]
        if _TO.fullmatch(between) or listed:
            pairs.append((n, n + 1, not (times[n][3] and times[n + 1][3]) or before))
            n += 2
        else:
            n += 1
    if not pairs and len(times) == 2:
        pairs = [(0, 1, True)]
    if any(sure for *_, sure in pairs):  # "between 3 and 5 people from 0:10 to 0:20"
        pairs = [pair for pair in pairs if pair[2]]
    found: list[Interval] = []
    for first, last, _ in pairs:
        start, end = times[first][2], times[last][2]
        if times[first][3] and times[last][4]:  # "5 to 10 minutes"
            start *= times[last][4]
        if end <= start:
            return None
        if (start, end) not in found:
            found.append((start, end))
    return tuple(sorted(found)) or None


def _seconds(match: re.Match[str]) -> float:
    if match["clock"]:
        seconds = float(match["cs"].replace(",", "."))
        return int(match["ch"] or 0) * 3600 + int(match["cm"]) * 60 + seconds
    if match["h"]:
        return float(match["h"]) * 3600 + float(match["hm"] or 0) * 60 + float(match["hs"] or 0)
    if match["m"]:
        return float(match["m"]) * 60 + float(match["ms"] or 0)
    return float(match["s"] or match["bare"])


def _unit(match: re.Match[str]) -> float:
    """The factor of the only unit of a time, for a bare number before it; 0 if there is none."""
    if match["h"] and not match["hm"] and not match["hs"]:
        return 3600.0
    if match["m"] and not match["ms"]:
        return 60.0
    return 0.0


def read_box(text: str) -> Box | None:
    """Return the one box that a text names; None if it names none, several, or an impossible one."""
    text = to_plain_digits(text)
    found = {_floats(match) for pattern in (_BOX_LIST, _CORNERS) for match in pattern.finditer(text)}
    if not found and (keyed := _read_keyed(text)):
        found = {keyed}
    if not found:
        bare = re.findall(rf"-?{_NUMBER}", text)
        rest = re.sub(
            rf"-?{_NUMBER}|\b(?:bbox(?:_2d)?|box|the|is|bounding|at|px|pixels)\b|[\W_]",
            "",
            text,
            flags=re.IGNORECASE,
        )
        if len(bare) == 4 and not rest:
            found = {(float(bare[0]), float(bare[1]), float(bare[2]), float(bare[3]))}
    if len(found) != 1:
        return None
    box = next(iter(found))
    return box if box[0] < box[2] and box[1] < box[3] else None


def _floats(match: re.Match[str]) -> Box:
    left, top, right, bottom = map(float, match.groups())
    return left, top, right, bottom


def _read_keyed(text: str) -> Box | None:
    given = {name.lower().replace("_", ""): float(value) for name, value in _KEYED.findall(text)}
    values = {side: next((given[n] for n in names if n in given), None) for side, names in _NAMES.items()}
    left, top, right, bottom = values["left"], values["top"], values["right"], values["bottom"]
    if left is None or top is None:
        return None
    width, height = given.get("width", given.get("w")), given.get("height", given.get("h"))
    if right is None and width is not None:
        right = left + width
    if bottom is None and height is not None:
        bottom = top + height
    return None if right is None or bottom is None else (left, top, right, bottom)


def measure_time_iou(a: Sequence[Interval], b: Sequence[Interval]) -> float:
    """Return the intersection over union of two sets of intervals, each taken as one set of moments."""
    first, second = _merge(a), _merge(b)
    shared = sum(max(0.0, min(e, f) - max(s, t)) for s, e in first for t, f in second)
    union = _length(first) + _length(second) - shared
    return shared / union if union > 0 else 0.0


def _merge(intervals: Sequence[Interval]) -> list[Interval]:
    merged: list[Interval] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def _length(intervals: Sequence[Interval]) -> float:
    return sum(end - start for start, end in intervals)


def measure_box_iou(a: Box, b: Box) -> float:
    """Return the intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)
