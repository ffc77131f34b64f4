"""What is said in a video: subtitle files beside it (`clip.srt`, `clip.en.vtt`), read and searched.

Subtitle files are written by hand and by tools of all ages, so reading is tolerant: SubRip and WebVTT are
told apart by each cue's own time line, whatever the file is called; numbers, hours and blank lines may be
missing; commas and dots both stand before milliseconds; tags, voices (`<v Ann>`) and positions are taken out,
and what cannot be read is skipped and counted. Encodings are those of the byte-order mark, else UTF-8, else
Windows-1252.

Search is by words (BM25 over single lines, with a little of their neighbours), so a line is found by what it
says and not by what it means. It needs no model.
"""

from __future__ import annotations

import codecs
import html
import logging
import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from act2see.errors import TranscriptError
from act2see.tools.runtime.files import printable, read_file

log = logging.getLogger(__name__)
SUFFIXES = (".srt", ".vtt")
_LARGEST = 16 << 20
_TIME = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,3}))?"
_CUE = re.compile(rf"^\W*{_TIME}\s*-+>\s*{_TIME}")
_VOICE = re.compile(r"<v(?:\.[^\s>]*)?\s+([^>]+)>")
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>|<\d[\d:.]*>|\{\\[^{}]*\}")
_WORD = re.compile(r"\w+")
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_K1, _B = 1.2, 0.5  # BM25: lines are short and much alike in length
_NEAR = 0.3  # how much a neighbour's words count


@dataclass(frozen=True, slots=True)
class Line:
    """What is said from `start` to `stop` seconds."""

    start: float
    stop: float
    text: str

    def __str__(self) -> str:
        return f'{self.start:.1f} s to {self.stop:.1f} s: "{self.text}"'


@dataclass(frozen=True, slots=True)
class Transcript:
    """The lines of a file in order of time; `skipped` cues could not be read."""

    path: str
    lines: tuple[Line, ...]
    skipped: int = 0

    def search(self, query: str, count: int = 5) -> tuple[Line, ...]:
        """The lines that share most with `query`, best first; the first ones of all where the query has no
        words."""
        wanted = set(_words(query))
        if not wanted:
            return self.lines[:count]
        said = [Counter(_words(line.text)) for line in self.lines]
        rarity = {
            w: math.log(1 + (len(said) - n + 0.5) / (n + 0.5))
            for w in wanted
            if (n := sum(w in s for s in said))
        }
        mean = sum(s.total() for s in said) / max(1, len(said))
        own = [_score(s, rarity, mean) for s in said]
        near = [max(own[max(0, i - 1) : i] + own[i + 1 : i + 2], default=0.0) for i in range(len(own))]
        # A neighbour helps a line that fits, and makes none fit.
        ranked = sorted(
            (i for i, score in enumerate(own) if score > 0), key=lambda i: (-(own[i] + _NEAR * near[i]), i)
        )
        return tuple(self.lines[i] for i in ranked[:count])


def subtitles_of(video: str | os.PathLike[str]) -> list[Path]:
    """The subtitle files beside a video: of its name, perhaps with a language (`clip.de.srt`) in between."""
    path = Path(video)
    try:
        beside = sorted(path.parent.iterdir())
    except OSError:
        return []
    return [f for f in beside if f.suffix.lower() in SUFFIXES and f.name.startswith(f"{path.stem}.")]


def read_transcript(path: str | os.PathLike[str]) -> Transcript:
    """Read a subtitle file. Raises `TranscriptError` where it is missing, too large, or has no line."""
    name = os.fspath(path)
    try:
        data = read_file(path, _LARGEST)
    except OSError as e:
        raise TranscriptError(f"the subtitles {name} cannot be read ({e.strerror}): check the file") from e
    except ValueError as e:  # a null character, half a surrogate pair
        raise TranscriptError(f"there are no subtitles {printable(name)!r}: check the name") from e
    lines, skipped = parse(_decoded(data))
    if not lines:
        raise TranscriptError(
            f"there is no line with a time in {name}: give a SubRip (.srt) or WebVTT (.vtt) file"
        )
    if skipped:
        log.warning("%s: %d lines with a time cannot be read and are skipped", name, skipped)
    return Transcript(name, lines, skipped)


def parse(text: str) -> tuple[tuple[Line, ...], int]:
    """The lines of a subtitle file in order of time, and how many could not be read."""
    rows = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    cues = [i for i, row in enumerate(rows) if "-->" in row or _CUE.match(row)]
    found, skipped = [], 0
    for i, end in zip(cues, [*cues, len(rows)][1:], strict=True):
        match = _CUE.match(rows[i])
        start, stop = (_seconds(*match.groups()[k : k + 4]) for k in (0, 4)) if match else (1.0, 0.0)
        said = _said(rows[i + 1 : end], last=end == len(rows))
        if stop < start or not said:
            skipped += 1
        else:
            found.append(Line(start, stop, said))
    return tuple(sorted(found, key=lambda line: line.start)), skipped


def _said(rows: Sequence[str], last: bool) -> str:
    """A cue's text: up to a blank line, or to the next cue's number or name where the blank line is
    missing."""
    rows = [r.strip() for r in rows]
    blank = rows.index("") if "" in rows else None
    rows = (
        rows[:blank]
        if blank is not None
        else rows
        if last or not rows or not rows[-1].isdigit()
        else rows[:-1]
    )
    text = _TAG.sub("", _VOICE.sub(r"\1: ", " ".join(rows)))
    return " ".join(html.unescape(text).split())


def _seconds(hours: str | None, minutes: str, seconds: str, thousandths: str | None) -> float:
    return (
        3600 * int(hours or 0)
        + 60 * int(minutes)
        + int(seconds)
        + int((thousandths or "0").ljust(3, "0")) / 1000
    )


def _decoded(data: bytes) -> str:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _words(text: str) -> list[str]:
    return [w for w in _WORD.findall(text.casefold()) if len(w) > 2 or not w.isascii() or w.isdigit()]


def _score(said: Counter[str], rarity: dict[str, float], mean: float) -> float:
    shorter = _K1 * (1 - _B + _B * said.total() / mean) if mean else _K1
    return sum(r * said[w] * (_K1 + 1) / (said[w] + shorter) for w, r in rarity.items())
