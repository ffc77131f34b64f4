"""The `ocr` tool: the text in the video, and the frames that show it.

RapidOCR finds and reads it (PP-OCR by onnxruntime; its models are in its package, so it works offline). A
video is read once, at `fps` or at `look` evenly spaced frames, whichever is fewer, and the text is kept by
content hash. A query is text to look for, found in a slightly different spelling too; `any` is all text there
is.

The text goes to the model in words as well, each line with the time it was on the screen. It comes from the
video and may say anything, so its angle brackets are replaced: it cannot pass for a tag.
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
from act2see.tools.frames import Taken
from act2see.tools.runtime.files import write_text
from act2see.tools.runtime.forks import Lock, leak, natively, renew_after_fork
from act2see.tools.video.reader import frames_at
from act2see.tools.video.store import Pixels

log = logging.getLogger(__name__)

ANY = {"", "any", "any text", "all", "all text", "text", "*", "everything"}
_LINES = 20  # lines in one note
_LINE = 120  # characters of a line
_RUNS = 4  # times of a line


@dataclass(frozen=True, slots=True)
class Seen:
    """A line of text in a video."""

    text: str
    runs: tuple[tuple[float, ...], ...]
    """The times at which it was read; within a run it was on every frame that was read."""

    @property
    def seconds(self) -> tuple[float, ...]:
        """All times at which it was read."""
        return tuple(t for run in self.runs for t in run)


class Ocr:
    """Finds frames by the text in them, and reads it."""

    class Options(ToolOptions):
        top_k: Annotated[int, Field(ge=1)] = 2
        """How many frames are shown."""
        fps: Annotated[float, Field(gt=0)] = 1.0
        """How many frames a second are read."""
        look: Annotated[int, Field(ge=1)] = 120
        """How many frames of a video are read at most."""
        max_side: Annotated[int, Field(ge=64)] = 960
        """The longer side of the pictures that are read, in pixels."""
        confidence: Annotated[float, Field(ge=0, le=1)] = 0.6
        """Lines of a lower confidence are left out."""
        alike: Annotated[float, Field(gt=0, le=1)] = 0.75
        """How well a line must hold the text that is looked for (`likeness`)."""
        usage: str = (
            "the text on the screen; the query is the words to look for, or any for all text there is"
        )

    def __init__(self, tag: str, options: Options, resources: Resources) -> None:
        self.tag, self.options, self.resources = tag, options, resources
        self.usage = options.usage
        for package in ("rapidocr", "onnxruntime"):
            if find_spec(package) is None:
                raise ConfigError(
                    f"the tool {tag!r} needs {package}, which is not installed: pip install 'act2see[ocr]'"
                )
        self._engine: Any = None
        self._read: dict[str, list[Seen]] = {}
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
            return ToolResult(note=f'No text like "{safe(wanted)}" was read. What was: {listed(lines)}.')
        library = self.resources.finder.library
        numbers = frames_at(library.probe(context.video).seconds, sorted(self._times(found)))
        frames = library.pictures(context.video, numbers, Taken(query=query))
        return ToolResult(tuple(frames), f"Read: {listed(found)}.")

    def _times(self, found: Sequence[Seen]) -> set[float]:
        """Times to show: each the moment with most of the lines that none of the times before it shows."""
        left = {line.text: set(line.seconds) for line in found}
        times: set[float] = set()
        while left and len(times) < self.options.top_k:
            first = next(iter(left.values()))
            # Of the best line's moments, the one with most other lines.
            best = max(sorted(first), key=lambda t: sum(t in seconds for seconds in left.values()))
            times.add(best)
            left = {text: seconds for text, seconds in left.items() if best not in seconds}
        return times

    def lines(self, video: str) -> list[Seen]:
        """All text in a video, in the order in which it appears. Read once, then from the cache.

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
        key = f"{clip.info.digest}-{o.fps:g}fps-{o.look}-{o.max_side}-{o.confidence:g}-{engine}"
        with self._lock:
            if key not in self._read:
                file = library.cache / "ocr" / f"{key}.json"
                known = _cached(file)
                self._read[key] = self._read_all(video, frames, file) if known is None else known
            return self._read[key]

    def _read_all(self, video: str, frames: Sequence[int], file: Path) -> list[Seen]:
        library = self.resources.finder.library
        size = library.probe(video).info.fit(self.options.max_side)
        spelt: dict[str, str] = {}  # the first spelling of each line
        runs: dict[str, list[list[float]]] = {}
        before: set[str] = set()
        for _, seconds, pixels in library.decode(video, frames, size):
            now = {_plain(text): text for text in self.read(pixels)}
            for plain, text in now.items():
                spelt.setdefault(plain, text)
                if plain not in before:
                    runs.setdefault(plain, []).append([])
                runs[plain][-1].append(round(seconds, 4))
            before = set(now)
        lines = [Seen(text, tuple(map(tuple, runs[plain]))) for plain, text in spelt.items()]
        write_text(file, json.dumps([[s.text, s.runs] for s in lines], ensure_ascii=False))
        return lines

    def renew(self) -> None:
        """In a forked child: another session, with threads of its own."""
        leak(self._engine)
        self._engine = None

    @natively
    def read(self, pixels: Pixels) -> list[str]:
        """The lines of one picture, `(height, width, 3)` uint8 RGB, from the top."""
        if self._engine is None:
            from rapidocr import RapidOCR

            # Its own log goes to the terminal, and it warns of every picture without text.
            side = self.options.max_side
            params = {
                "Global.log_level": "critical",
                "Global.use_cls": False,
                "Det.limit_type": "max",
                "Det.limit_side_len": side,
            }
            self._engine = RapidOCR(params=params)
        result = self._engine(np.ascontiguousarray(pixels[:, :, ::-1]))
        texts, scores = result.txts or (), result.scores or ()
        lines = [(" ".join(t.split()), s) for t, s in zip(texts, scores, strict=True)]
        return [t for t, s in lines if s >= self.options.confidence and _plain(t)]


def likeness(wanted: str, line: str) -> float:
    """How well a line holds a text, from 0 to 1. Case, spaces and punctuation do not count."""
    a, b = _plain(wanted), _plain(line)
    if not a or not b:
        return 0.0
    if a in b:
        return 1.0
    parts = [b[i : i + len(a)] for i in range(max(1, len(b) - len(a) + 1))]
    return max(SequenceMatcher(None, a, part, autojunk=False).ratio() for part in parts)


def listed(lines: Sequence[Seen]) -> str:
    """Lines for the model, each with the times at which it was on the screen."""
    said = [f'"{safe(s.text)}" at {_when(s.runs)}' for s in lines[:_LINES]]
    if len(lines) > _LINES:
        said.append(f"and {len(lines) - _LINES} more lines")
    return "; ".join(said)


def safe(text: str) -> str:
    """Text from a video, fit for a note: one line, cut, without angle brackets."""
    text = " ".join(text.split()).translate({ord("<"): "\u2039", ord(">"): "\u203a"})
    return text if len(text) <= _LINE else f"{text[: _LINE - 1]}\u2026"


def _when(runs: Sequence[Sequence[float]]) -> str:
    spans = []
    for run in runs[:_RUNS]:
        spans.append(f"{run[0]:.1f}" if len(run) == 1 else f"{run[0]:.1f} to {run[-1]:.1f}")
    later = " and later" if len(runs) > _RUNS else ""
    return f"{', '.join(spans)} seconds{later}"


def _plain(text: str) -> str:
    return "".join(re.findall(r"\w", text.casefold()))


def _cached(file: Path) -> list[Seen] | None:
    """The lines that were read before; None if the file is missing or damaged."""
    try:
        data: Iterable[tuple[str, list[list[float]]]] = json.loads(file.read_text(encoding="utf-8"))
        return [Seen(str(text), tuple(tuple(map(float, run)) for run in runs)) for text, runs in data]
    except (OSError, ValueError, TypeError):
        return None
