"""The `ocr` tool: the text that is to be read in the video, and the frames that show it.

RapidOCR finds and reads it (PP-OCR by onnxruntime; its models are in its package, so it works offline). A
video is read once: at `fps`, or thinner where that would be more than `look` frames, and what was read is
remembered by content hash. A query is text to look for, found where it is spelt a little differently too;
`any` is all text there is.

What was read goes to the model in words as well, each line with the time it was on the screen. It comes from
the video and may say anything, so its angle brackets are replaced: it cannot pass for a tag.
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
from numpy.typing import NDArray
from pydantic import Field

from act2see.errors import ConfigError
from act2see.tools.base import Resources, ToolContext, ToolOptions, ToolResult
from act2see.tools.frames import Taken
from act2see.tools.runtime.files import write_text
from act2see.tools.runtime.forks import Lock, leak, natively, renew_after_fork
from act2see.tools.video.reader import frames_at

log = logging.getLogger(__name__)
Pixels = NDArray[np.uint8]

ANY = {"", "any", "any text", "all", "all text", "text", "*", "everything"}
_LINES, _LINE, _RUNS = 20, 120, 4  # of what was read, as much goes into one note


@dataclass(frozen=True, slots=True)
class Seen:
    """A line of text, and the times at which it was read, in runs: within one no frame that was read was
    without it."""

    text: str
    runs: tuple[tuple[float, ...], ...]

    @property
    def seconds(self) -> tuple[float, ...]:
        return tuple(t for run in self.runs for t in run)


class Ocr:
    """Finds frames by the text in them, and reads it."""

    class Options(ToolOptions):
        top_k: Annotated[int, Field(ge=1)] = 2
        fps: Annotated[float, Field(gt=0)] = 1.0
        look: Annotated[int, Field(ge=1)] = 120
        max_side: Annotated[int, Field(ge=64)] = 960
        confidence: Annotated[float, Field(ge=0, le=1)] = 0.6
        alike: Annotated[float, Field(gt=0, le=1)] = 0.75
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
        found = (
            lines
            if wanted.casefold() in ANY
            else [s for s in lines if likeness(wanted, s.text) >= self.options.alike]
        )
        if not found:
            return ToolResult(note=f'No text like "{safe(wanted)}" was read. What was: {listed(lines)}.')
        if found is not lines:
            found = sorted(found, key=lambda s: -likeness(wanted, s.text))
        clips, made = self.resources.finder.clips, Taken(query=query)
        clip = clips.clip(context.video)
        frames = clips.pictures(context.video, frames_at(clip.seconds, sorted(self._times(found))))
        return ToolResult(
            tuple(f.model_copy(update={"provenance": made}) for f in frames), f"Read: {listed(found)}."
        )

    def _times(self, found: Sequence[Seen]) -> set[float]:
        """When to look: each time at the moment that shows most lines which no frame so far shows."""
        left, times = {s.text: set(s.seconds) for s in found}, set[float]()
        while left and len(times) < self.options.top_k:
            first = next(iter(left.values()))
            # Of the best line's moments: another line may make one of them the better one.
            best = max(sorted(first), key=lambda t: sum(t in seconds for seconds in left.values()))
            times.add(best)
            left = {text: seconds for text, seconds in left.items() if best not in seconds}
        return times

    def lines(self, video: str) -> list[Seen]:
        """All text in a video, in the order in which it appears. Read once, and remembered."""
        o, clips = self.options, self.resources.finder.clips
        clip = clips.clip(video)
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
                file = clips.cache / "ocr" / f"{key}.json"
                known = _remembered(file)
                self._read[key] = self._read_all(video, frames, file) if known is None else known
            return self._read[key]

    def _read_all(self, video: str, frames: Sequence[int], file: Path) -> list[Seen]:
        clips = self.resources.finder.clips
        info = clips.clip(video).info
        scale = min(1.0, self.options.max_side / max(info.width, info.height))
        size = max(2, round(info.width * scale)), max(2, round(info.height * scale))
        spelt: dict[str, str] = {}
        runs: dict[str, list[list[float]]] = {}
        before: set[str] = set()
        for _, seconds, pixels in clips.decode(video, frames, size):
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

            # Its own log goes to the terminal, and a picture without text is a warning to it.
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
    """How well a line holds the text that is looked for: 1.0 where it does, whatever the case, spaces and
    signs."""
    a, b = _plain(wanted), _plain(line)
    if not a or not b:
        return 0.0
    if a in b:
        return 1.0
    parts = [b[i : i + len(a)] for i in range(max(1, len(b) - len(a) + 1))]
    return max(SequenceMatcher(None, a, part, autojunk=False).ratio() for part in parts)


def listed(lines: Sequence[Seen]) -> str:
    """Lines for the model: each with when it was on the screen."""
    said = [f'"{safe(s.text)}" at {_when(s.runs)}' for s in lines[:_LINES]]
    if len(lines) > _LINES:
        said.append(f"and {len(lines) - _LINES} more lines")
    return "; ".join(said)


def safe(text: str) -> str:
    """Text from a video, as it may stand in a note: a line, not long, and without angle brackets."""
    text = " ".join(text.split()).translate({ord("<"): "\u2039", ord(">"): "\u203a"})
    return text if len(text) <= _LINE else f"{text[: _LINE - 1]}\u2026"


def _when(runs: Sequence[Sequence[float]]) -> str:
    spans = [f"{r[0]:.1f}" if len(r) == 1 else f"{r[0]:.1f} to {r[-1]:.1f}" for r in runs[:_RUNS]]
    return f"{', '.join(spans)} seconds{' and later' if len(runs) > _RUNS else ''}"


def _plain(text: str) -> str:
    return "".join(re.findall(r"\w", text.casefold()))


def _remembered(file: Path) -> list[Seen] | None:
    """What was read before; None where it was not, or is damaged."""
    try:
        data: Iterable[tuple[str, list[list[float]]]] = json.loads(file.read_text(encoding="utf-8"))
        return [Seen(str(text), tuple(tuple(map(float, run)) for run in runs)) for text, runs in data]
    except (OSError, ValueError, TypeError):
        return None
