"""Subtitle files beside a video (`clip.srt`, `clip.en.vtt`): what is said in it, read and searched.

Subtitle files are written by hand and by tools of all ages, so reading is tolerant: each cue is read by its
own time line, whether SubRip or WebVTT; numbers, hours and blank lines may be missing; commas and dots both
stand before milliseconds; tags, voices (`<v Ann>`) and positions are removed, and cues that cannot be read
are skipped and counted. pysubs2 was tried and loses the text of cues with inline times, merges an unreadable
cue into the one before it, and counts none. Encodings are those of the byte-order mark, else UTF-8, else
Windows-1252.

Search is by words (BM25 over single lines, with a little of their neighbours), so a line is found by its
words and not by its meaning. It needs no model.
"""

from __future__ import annotations

import codecs
import html
import logging
import math
import os
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
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
_NEAR = 0.3  # the share of a neighbour's score


@dataclass(frozen=True, slots=True)
class Line:
    """Words that are said from `start` to `stop`, in seconds."""

    start: float
    stop: float
    text: str

    def __str__(self) -> str:
        return f'{self.start:.1f} s to {self.stop:.1f} s: "{self.text}"'


@dataclass(frozen=True, slots=True)
class Transcript:
    """The lines of a subtitle file."""

    path: str
    lines: tuple[Line, ...]
    """In order of time."""
    skipped: int = 0
    """How many cues could not be read."""

    def search(self, query: str, count: int = 5) -> tuple[Line, ...]:
        """The lines that share most words with a query, best first.

        A query without words gives the first lines of the file.
        """
        wanted = set(_words(query))
        if not wanted:
            return self.lines[:count]
        scores = _bm25([Counter(_words(line.text)) for line in self.lines], wanted)
        total = {}
        for i, score in enumerate(scores):
            if score > 0:  # a neighbour helps a line that fits, and makes none fit
                beside = scores[max(0, i - 1) : i] + scores[i + 1 : i + 2]
                total[i] = score + _NEAR * max(beside, default=0.0)
        ranked = sorted(total, key=lambda i: (-total[i], i))
        return tuple(self.lines[i] for i in ranked[:count])


def subtitles_of(video: str | os.PathLike[str]) -> list[Path]:
    """The subtitle files beside a video: of its name, perhaps with a language in it (`clip.de.srt`)."""
    path = Path(video)
    try:
        beside = sorted(path.parent.iterdir())
    except OSError:
        return []
    return [f for f in beside if f.suffix.lower() in SUFFIXES and f.name.startswith(f"{path.stem}.")]


def read_transcript(path: str | os.PathLike[str]) -> Transcript:
    """Read a subtitle file.

    Raises:
        TranscriptError: It cannot be read, is too large, or has no line.
    """
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
    for i, end in pairwise([*cues, len(rows)]):
        line = _line(rows[i], _text(rows[i + 1 : end], last=end == len(rows)))
        if line is None:
            skipped += 1
        else:
            found.append(line)
    return tuple(sorted(found, key=lambda line: line.start)), skipped


def _line(times: str, text: str) -> Line | None:
    """A cue; None if its times cannot be read or are in the wrong order, or it has no text."""
    match = _CUE.match(times)
    if match is None or not text:
        return None
    hours, minutes, seconds, thousandths, *end = match.groups()
    start, stop = _seconds(hours, minutes, seconds, thousandths), _seconds(*end)
    return Line(start, stop, text) if start <= stop else None


def _text(rows: Sequence[str], last: bool) -> str:
    """A cue's text: up to a blank line or, if that is missing, to the number of the next cue."""
    rows = [row.strip() for row in rows]
    if "" in rows:
        rows = rows[: rows.index("")]
    elif rows and rows[-1].isdigit() and not last:
        rows = rows[:-1]
    text = _TAG.sub("", _VOICE.sub(r"\1: ", " ".join(rows)))
    return " ".join(html.unescape(text).split())


def _seconds(hours: str | None, minutes: str, seconds: str, thousandths: str | None) -> float:
    whole = 3600 * int(hours or 0) + 60 * int(minutes) + int(seconds)
    return whole + int((thousandths or "0").ljust(3, "0")) / 1000


def _decoded(data: bytes) -> str:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _words(text: str) -> list[str]:
    """Words of three letters or more, and shorter ones that are numbers or not ASCII."""
    return [w for w in _WORD.findall(text.casefold()) if len(w) > 2 or not w.isascii() or w.isdigit()]


def _bm25(lines: Sequence[Counter[str]], wanted: Collection[str]) -> list[float]:
    """The BM25 score of each line, given as its words with their counts."""
    rarity = {}
    for word in wanted:
        if n := sum(word in line for line in lines):
            rarity[word] = math.log(1 + (len(lines) - n + 0.5) / (n + 0.5))
    mean = sum(line.total() for line in lines) / max(1, len(lines))
    scores = []
    for line in lines:
        length = _K1 * (1 - _B + _B * line.total() / mean) if mean else _K1
        scores.append(sum(r * line[word] * (_K1 + 1) / (line[word] + length) for word, r in rarity.items()))
    return scores
