"""Subtitle files beside a video (`clip.srt`, `clip.en.vtt`): reading and searching them.

Subtitles are written by hand and by many programs, so the parser is tolerant. It reads each cue of SubRip or
WebVTT by its own time line. Numbers, hours and blank lines may be missing, and parts of a second may follow a
comma or a dot. In SubRip a blank line may also stand in a cue's text. Tags and positions are removed, voices
(`<v Ann>`) become `Ann: `, and cues that cannot be parsed are skipped and counted. Captions that roll up
(YouTube's) show each line in several cues: it is read once. pysubs2 is not used: it loses the text of cues
with inline times, merges an unreadable cue into the one before it, and does not count such cues. An arrow in
a cue's text ("A --> B") makes no time line: that has two times, or stands where a cue must begin. A time
before the video is its start. `encodings.py` finds the encoding.

The file may come from a stranger, so reading it takes time in proportion to its size: no expression starts
again in what it has read, hours have at most four digits, and the number of cues is limited.

Search uses words (BM25 over single lines, plus a share of their neighbours' scores) and no model, so it finds
a line by its words and not by its meaning.
"""

from __future__ import annotations

import html
import logging
import math
import os
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from act2see.errors import TranscriptError
from act2see.tools.runtime.files import printable, read_file
from act2see.tools.runtime.text import drop_controls
from act2see.tools.video.encodings import decode_text

log = logging.getLogger(__name__)
SUFFIXES = (".srt", ".vtt")
_LARGEST = 16 << 20  # bytes
_MOST_CUES = 200_000  # of which a day of speech has 40,000
_TIME = r"(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,9}))?"
_CUE = re.compile(rf"^\W*?(-?){_TIME}\s*-+>\s*(-?){_TIME}(?:\s|$)")
# `<` ends each of these: otherwise every tag that is not closed would be searched to the end of the text.
_VOICE = re.compile(r"<v(?:\.[^\s<>]*)?\s+([^\s<>][^<>]*)>")
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>|<\d[\d:.]*>|\{\\[^{}]*\}")
# No character has such a number, and Python refuses to read thousands of digits.
_NO_CHARACTER = re.compile(r"&#(?:\d{8,}|[xX][\da-fA-F]{8,});?")
_WORD = re.compile(r"\w+")
_ROLLING = re.compile(r"<\d\d:\d\d:\d\d\.\d{3}><c>")  # a time for each word, as in captions that roll up
_K1, _B = 1.2, 0.5  # parameters of BM25; a low B, because lines are short and similar in length
_NEAR = 0.3  # share of a neighbour's score


@dataclass(frozen=True, slots=True)
class Line:
    """Text that is spoken from `start` to `stop`, in seconds."""

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
    """Lines in order of time."""
    skipped: int = 0
    """Number of cues that could not be parsed."""
    doubt: str = ""
    """Why the text may be wrong: the file does not say its encoding, and several are likely."""

    def within(self, start: float, end: float) -> Transcript:
        """Return the lines that are spoken in a part of the video, with times from the part's start."""
        lines = [
            Line(max(0.0, line.start - start), min(line.stop, end) - start, line.text)
            for line in self.lines
            if line.stop > start and line.start < end
        ]
        return replace(self, lines=tuple(lines))

    def search(self, query: str, count: int = 5) -> tuple[Line, ...]:
        """Return the lines that match the words of a query best, best first.

        For a query without words, return the first lines of the file.

        Args:
            query: The words to search for.
            count: The largest number of lines.
        """
        wanted = set(_words(query))
        if not wanted:
            return self.lines[:count]
        scores = _bm25([Counter(_words(line.text)) for line in self.lines], wanted)
        total = {}
        for i, score in enumerate(scores):
            if score > 0:  # neighbours raise the score of a matching line, but cannot make a line match
                beside = scores[max(0, i - 1) : i] + scores[i + 1 : i + 2]
                total[i] = score + _NEAR * max(beside, default=0.0)
        ranked = sorted(total, key=lambda i: (-total[i], i))
        return tuple(self.lines[i] for i in ranked[:count])


def subtitles_of(video: str | os.PathLike[str]) -> list[Path]:
    """Return the subtitle files beside a video: those with its name, such as `clip.srt` or `clip.de.srt`."""
    path = Path(video)
    try:
        beside = sorted(path.parent.iterdir())
    except OSError:
        return []
    return [f for f in beside if f.suffix.lower() in SUFFIXES and f.name.startswith(f"{path.stem}.")]


def read_transcript(path: str | os.PathLike[str]) -> Transcript:
    """Read a subtitle file.

    Raises:
        TranscriptError: The file cannot be read, is too large, or has no lines, or too many.
    """
    name = os.fspath(path)
    try:
        data = read_file(path, _LARGEST)
    except OSError as e:
        raise TranscriptError(f"the subtitles {name} cannot be read ({e.strerror}): check the file") from e
    except ValueError as e:  # a null character or a lone surrogate
        raise TranscriptError(f"there are no subtitles {printable(name)!r}: check the name") from e
    text, doubt = decode_text(data, name)
    lines, skipped = parse(text)
    if not lines:
        raise TranscriptError(
            f"there is no line with a time in {name}: give a SubRip (.srt) or WebVTT (.vtt) file"
        )
    if skipped:
        log.warning("%s: %d cues cannot be parsed and are skipped", name, skipped)
    return Transcript(name, lines, skipped, doubt)


def parse(text: str) -> tuple[tuple[Line, ...], int]:
    """Return the lines of a subtitle file in order of time, and the number of cues that were skipped.

    Raises:
        TranscriptError: There are too many cues.
    """
    # "\r\r\n" comes of "\r\n" that was written as text once more.
    rows = text.replace("\r\r\n", "\n").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    cues = [i for i in range(len(rows)) if _begins_cue(rows, i)]
    if len(cues) > _MOST_CUES:
        raise TranscriptError(f"the subtitles have more than {_MOST_CUES:,} cues: split the file")
    is_webvtt, rolls = text.startswith("WEBVTT"), bool(_ROLLING.search(text))
    found, skipped = [], 0
    above = ""  # the last row of the cue before
    for i, end in pairwise([*cues, len(rows)]):
        shown = _shown_rows(rows[i + 1 : end], is_webvtt, last=end == len(rows))
        if rolls and shown and shown[0] == above:
            del shown[0]
            if not shown:
                continue
        line = _line(rows[i], " ".join(shown))
        if line is None:
            skipped += 1
        else:
            above = shown[-1]
            found.append(line)
    return tuple(sorted(found, key=lambda line: line.start)), skipped


def _begins_cue(rows: Sequence[str], i: int) -> bool:
    """Whether a row is a time line, or one that cannot be parsed: an arrow where a cue must begin."""
    row = rows[i]
    if _CUE.match(row):
        return True
    if "-->" not in row:
        return False
    above = rows[i - 1].strip() if i else ""
    if above.isdigit():  # the number of a cue, unless it stands in a cue's text
        return i < 2 or not rows[i - 2].strip()
    return not above and row.lstrip("\ufeff -")[:1].isdigit() and row.rstrip()[-1:].isdigit()


def _line(times: str, text: str) -> Line | None:
    """Return a cue; None if its times cannot be parsed or are in the wrong order, or if it has no text."""
    match = _CUE.match(times)
    if match is None or not text:
        return None
    sign, hours, minutes, seconds, fraction, *end = match.groups()
    start, stop = _seconds(sign, hours, minutes, seconds, fraction), _seconds(*end)
    return Line(max(0.0, start), stop, text) if start <= stop and stop >= 0 else None


def _shown_rows(rows: Sequence[str], is_webvtt: bool, last: bool) -> list[str]:
    """Return the rows of a cue's text, without tags and without empty rows.

    In WebVTT the text ends at an empty line. In SubRip it ends before the number of the next cue.
    """
    if is_webvtt and "" in rows:
        rows = rows[: rows.index("")]
    rows = [row.strip() for row in rows]
    while rows and not rows[-1]:
        del rows[-1]
    if rows and rows[-1].isdigit() and not last and (not is_webvtt or len(rows) > 1):
        del rows[-1]
    # A tag may go on in the next row, so the rows are one text until the tags are gone.
    text = _TAG.sub("", _VOICE.sub(r"\1: ", "\n".join(rows)))
    text = html.unescape(_NO_CHARACTER.sub("\N{REPLACEMENT CHARACTER}", text))
    shown = [" ".join(drop_controls(row).split()) for row in text.split("\n")]
    return [row for row in shown if row]


def _seconds(sign: str, hours: str | None, minutes: str, seconds: str, fraction: str | None) -> float:
    whole = 3600 * int(hours or 0) + 60 * int(minutes) + int(seconds)
    return (-1 if sign else 1) * (whole + float(f"0.{fraction or 0}"))


def _words(text: str) -> list[str]:
    """Return the words of at least three letters, and shorter ones that are numbers or not ASCII."""
    return [w for w in _WORD.findall(text.casefold()) if len(w) > 2 or not w.isascii() or w.isdigit()]


def _bm25(lines: Sequence[Counter[str]], wanted: Collection[str]) -> list[float]:
    """Return the BM25 score of each line.

    Args:
        lines: The words of each line with their counts.
        wanted: The words of the query.
    """
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
