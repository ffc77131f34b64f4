"""The `ocr` tool: the text in the video, and the frames that show it.

RapidOCR reads the text (PP-OCR on onnxruntime; its package contains the models, so it works offline). A video
is read once, at `fps` or at `look` evenly spaced frames, whichever is fewer, and the text is cached by the
video's content hash. A query is text to look for, which may be spelled slightly differently; `any` means all
text.

The model also receives the text in words, each line with the times at which it was on screen. Text from a
video is untrusted, so its angle brackets are replaced: it cannot imitate a tag.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from act2see.errors import ConfigError
from act2see.tools.base import Resources, ToolContext, ToolOptions, ToolResult
from act2see.tools.frames import Taken, Video
from act2see.tools.runtime.files import write_text
from act2see.tools.runtime.forks import Lock, leak, natively, renew_after_fork
from act2see.tools.runtime.outside import quote_tags
from act2see.tools.video.reader import frames_at
from act2see.tools.video.store import Pixels

log = logging.getLogger(__name__)

ANY = {"", "any", "any text", "all", "all text", "text", "*", "everything"}
_MAX_LINES = 20  # lines in one note
_MAX_CHARS = 120  # characters of a line
_MAX_RUNS = 4  # intervals of a line


@dataclass(frozen=True, slots=True)
class TextLine:
    """A line of text in a video."""

    text: str
    runs: tuple[tuple[float, ...], ...]
    """Times at which it was read, in seconds. The times of one run belong to consecutive frames."""

    @property
    def seconds(self) -> tuple[float, ...]:
        """All times at which it was read."""
        return tuple(t for run in self.runs for t in run)


class Ocr:
    """Finds frames by the text in them, and reads it."""

    class Options(ToolOptions):
        top_k: Annotated[int, Field(ge=1)] = 2
        """Number of frames to show."""
        fps: Annotated[float, Field(gt=0, le=1000)] = 1.0
        """Number of frames per second to read."""
        look: Annotated[int, Field(ge=1)] = 120
        """Largest number of frames of a video to read."""
        max_side: Annotated[int, Field(ge=64)] = 960
        """Longer side of the pictures to read, in pixels."""
        confidence: Annotated[float, Field(ge=0, le=1)] = 0.6
        """Lowest confidence of a line."""
        alike: Annotated[float, Field(gt=0, le=1)] = 0.75
        """Lowest `likeness` of a line to the text to look for."""
        usage: str = "the text on the screen; the query is the words to look for, or `any` for all text"

    def __init__(self, tag: str, options: Options, resources: Resources) -> None:
        self.tag = tag
        self.options = options
        self.resources = resources
        self.usage = options.usage
        for package in ("rapidocr", "onnxruntime"):
            if find_spec(package) is None:
                raise ConfigError(
                    f"the tool {tag!r} needs {package}, which is not installed: pip install 'act2see[ocr]'"
                )
        self._engine: Any = None
        self._read: dict[str, list[TextLine]] = {}
        self._lock = Lock()
        renew_after_fork(self)

    @property
    def version(self) -> str:
        from importlib.metadata import version

        return f"ocr rapidocr {version('rapidocr')}"

    async def call(self, query: str, context: ToolContext) -> ToolResult:
        return await asyncio.to_thread(self._call, query, context)

    def _call(self, query: str, context: ToolContext) -> ToolResult:
        lines = self.lines(context.video)
        if not lines:
            return ToolResult(note="There is no text to be read in this video.")
        wanted = query.strip().strip("\"'")
        found = lines
        if wanted.casefold() not in ANY:
            scores = {line.text: likeness(wanted, line.text) for line in lines}
            found = [line for line in lines if scores[line.text] >= self.options.alike]
            found.sort(key=lambda line: -scores[line.text])
        if not found:
            note = (
                f'No text like "{safe_text(wanted)}" was read. The text that was read: {list_lines(lines)}.'
            )
            return ToolResult(note=note)
        library = self.resources.finder.library
        numbers = frames_at(library.probe(context.video).seconds, sorted(self._choose_times(found)))
        frames = library.pictures(context.video, numbers, Taken(query=query))
        return ToolResult(tuple(frames), f"Read: {list_lines(found)}.")

    def _choose_times(self, found: Sequence[TextLine]) -> set[float]:
        """Return the times to show, greedily: each shows the first uncovered line and the most others."""
        left = {line.text: set(line.seconds) for line in found}
        times: set[float] = set()
        while left and len(times) < self.options.top_k:
            first = next(iter(left.values()))
            best = max(sorted(first), key=lambda t: sum(t in seconds for seconds in left.values()))
            times.add(best)
            left = {text: seconds for text, seconds in left.items() if best not in seconds}
        return times

    def lines(self, video: str) -> list[TextLine]:
        """Return all text in a video, in order of appearance. It is read once and then cached.

        Raises:
            StoreError: The cache cannot be written.
            VideoError: The video cannot be read.
        """
        o, library = self.options, self.resources.finder.library
        clip = library.probe(video)
        frames = clip.every(o.fps)
        if len(frames) > o.look:
            log.warning(
                "%s: %d of %d frames are read for text; raise `look` or lower `fps`",
                video,
                o.look,
                len(frames),
            )
            frames = clip.spread(o.look)
        engine = self.version.rpartition(" ")[2]
        settings = f"{o.fps:g}fps-{o.look}-{o.max_side}-{o.confidence:g}-{engine}"
        key = f"{clip.info.digest}-{settings}-{library.decoding}"
        with self._lock:
            if key not in self._read:
                file = library.cache / "ocr" / f"{key}.json"
                cached = _read_cache(file)
                if cached is None:
                    cached = self._read_video(video, frames, file, clip.info)
                self._read[key] = cached
            return self._read[key]

    def _read_video(self, video: str, frames: Sequence[int], file: Path, info: Video) -> list[TextLine]:
        """Read the text of frames of a video, and write it to the cache."""
        library = self.resources.finder.library
        size = info.fit(self.options.max_side)
        spellings: dict[str, str] = {}  # normalised line to its first spelling
        runs: dict[str, list[list[float]]] = {}
        before: set[str] = set()  # the lines of the frame before
        for _, seconds, pixels in library.decode(video, frames, size, info.digest):
            now = {_normalise(text): text for text in self.read(pixels)}
            for line, text in now.items():
                spellings.setdefault(line, text)
                if line not in before:
                    runs.setdefault(line, []).append([])
                runs[line][-1].append(round(seconds, 4))
            before = set(now)
        lines = [TextLine(text, tuple(map(tuple, runs[line]))) for line, text in spellings.items()]
        write_text(file, json.dumps([[line.text, line.runs] for line in lines], ensure_ascii=False))
        return lines

    def renew(self) -> None:
        """In a forked child, start a new engine at the next use: it has threads."""
        leak(self._engine)
        self._engine = None

    @natively
    def read(self, pixels: Pixels) -> list[str]:
        """Return the lines of text in one picture, `(height, width, 3)` uint8 RGB, from top to bottom."""
        if self._engine is None:
            from rapidocr import RapidOCR

            # RapidOCR logs to the terminal, with a warning for every picture without text.
            side = self.options.max_side
            params = {
                "Global.log_level": "critical",
                "Global.use_cls": False,
                "Det.limit_type": "max",
                "Det.limit_side_len": side,
            }
            self._engine = RapidOCR(params=params)
        result = self._engine(np.ascontiguousarray(pixels[:, :, ::-1]))  # RapidOCR takes BGR
        lines = []
        for text, score in zip(result.txts or (), result.scores or (), strict=True):
            if score >= self.options.confidence and _normalise(text):
                lines.append(" ".join(text.split()))
        return lines


def likeness(wanted: str, line: str) -> float:
    """Return how well a line contains a text, from 0 to 1. Case, spaces and punctuation are ignored."""
    a, b = _normalise(wanted), _normalise(line)
    if not a or not b:
        return 0.0
    if a in b:
        return 1.0
    parts = [b[i : i + len(a)] for i in range(max(1, len(b) - len(a) + 1))]
    return max(SequenceMatcher(None, a, part, autojunk=False).ratio() for part in parts)


def list_lines(lines: Sequence[TextLine]) -> str:
    """Return lines for the model, each with the times at which it was on screen."""
    listed = [f'"{safe_text(line.text)}" at {_format_runs(line.runs)}' for line in lines[:_MAX_LINES]]
    if len(lines) > _MAX_LINES:
        listed.append(f"and {len(lines) - _MAX_LINES} more lines")
    return "; ".join(listed)


def safe_text(text: str) -> str:
    """Return text from a video for a note: on one line, cut at 120 characters, without angle brackets.

    Its quotation marks become two single ones: the note puts it in quotation marks, which it must not close.
    """
    text = quote_tags(" ".join(text.split())).replace('"', "''")
    return text if len(text) <= _MAX_CHARS else f"{text[: _MAX_CHARS - 1]}\u2026"


def _format_runs(runs: Sequence[Sequence[float]]) -> str:
    """Return `1.0, 3.0 to 5.0 seconds`."""
    intervals = []
    for run in runs[:_MAX_RUNS]:
        intervals.append(f"{run[0]:.1f}" if len(run) == 1 else f"{run[0]:.1f} to {run[-1]:.1f}")
    later = " and later" if len(runs) > _MAX_RUNS else ""
    return f"{', '.join(intervals)} seconds{later}"


def _normalise(text: str) -> str:
    """Return the letters and digits of a text, without case."""
    return "".join(re.findall(r"\w", text.casefold()))


def _read_cache(file: Path) -> list[TextLine] | None:
    """Return the cached lines of a video; None if the file is missing or damaged."""
    lines = []
    try:
        data: Iterable[tuple[str, list[list[float]]]] = json.loads(file.read_text(encoding="utf-8"))
        for text, runs in data:
            lines.append(TextLine(str(text), tuple(tuple(map(float, run)) for run in runs)))
    except (OSError, ValueError, TypeError):
        return None
    return lines
