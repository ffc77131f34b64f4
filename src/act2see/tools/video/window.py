"""Paths of videos and of their parts: `clip.mp4`, or `clip.mp4#t=2,8` for the seconds 2 to 8 of it.

The suffix is a W3C media fragment. Its times are seconds (`2.5`), minutes and seconds (`0:02`) or hours too
(`00:00:02`), with or without `npt:`. `v=1` chooses a video stream, as numbered by FFmpeg (`v:1`, from 0);
both are joined by `&`. A part is treated as a video of its own that starts at 0. States, traces and corpora
contain paths as text, and functions of the tools accept such text or a `Window`. Each of them calls
`Window.resolve`, which parses text and returns a `Window` unchanged.

A path may be a `file:` URL. Parsing raises no error: what is wrong in a fragment is reported on opening.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, replace
from typing import Self
from urllib.parse import unquote

from act2see.errors import VideoError
from act2see.tools.runtime.text import clean_text

_TIME = re.compile(r"(?:(?:(\d+):)?(\d{1,9}):(?=\d\d?(?:\.|$)))?(\d+(?:\.\d*)?)", re.ASCII)
_FRAGMENT = re.compile(r"#(?:[tv]=[^#&/]*)(?:&[tv]=[^#&/]*)*$")
_STREAM = re.compile(r"\d{1,4}", re.ASCII)
_FILE_URL = re.compile(r"file://(?:localhost)?/(?!/)", re.IGNORECASE)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True, slots=True)
class Window:
    """A video file, or a part of one."""

    path: str
    """Path of the file."""
    start: float = 0.0
    """Start of the part, in seconds of the file."""
    end: float = math.inf
    """End of the part, in seconds of the file; infinite for the end of the file."""
    stream: int | None = None
    """Number of the video stream among those of the file, from 0; None for the one that a player shows."""

    @classmethod
    def parse(cls, path: str | os.PathLike[str]) -> Self:
        """Parse a path without access to the disk. A fragment that is not valid belongs to the name."""
        path = _local_path(os.fspath(path))
        found = _FRAGMENT.search(path)
        values = _parse_fragment(found.group()) if found else None
        if found is None or values is None:
            return cls(path)
        return cls(path[: found.start()], *values)

    @classmethod
    def resolve(cls, video: VideoPath) -> Window:
        """Parse a path, unless it is a window. If a file has this exact name, the path means that file."""
        if isinstance(video, Window):
            return video
        window = cls.parse(video)
        exact = os.fspath(video)
        return window if window.path == exact or not os.path.exists(exact) else cls(exact)

    @property
    def whole(self) -> bool:
        """Whether it is the whole file, with the video stream that a player shows."""
        return self.start == 0 and self.end == math.inf and self.stream is None

    def part(self, start: float, end: float) -> Window:
        """Return a part of this window.

        Args:
            start: Start of the part, in seconds of this window.
            end: End of the part, in seconds of this window.
        """
        return replace(self, start=self.start + start, end=self.start + end)

    @property
    def fragment(self) -> str:
        """The suffix of its path: `#t=2,8`, `#t=2` without an end, `#v=1`; empty for a whole file."""
        parts = []
        if self.start != 0 or self.end != math.inf:
            end = "" if self.end == math.inf else f",{exact_seconds(self.end)}"
            parts.append(f"t={exact_seconds(self.start)}{end}")
        if self.stream is not None:
            parts.append(f"v={self.stream}")
        return f"#{'&'.join(parts)}" if parts else ""

    def problem(self) -> str | None:
        """Return what is wrong with the path, without access to the disk; None if nothing is."""
        if url := _URL.match(self.path):
            return (
                f"{clean_text(self.path)} is an address ({url.group()}), and only files are opened: "
                "download the video and give its path"
            )
        if self.end <= self.start < math.inf:
            return (
                f"the part {self.fragment} of {clean_text(self.path)} ends before it starts: "
                "write the start first, as in #t=2,5"
            )
        return None

    def misread(self) -> str | None:
        """Return what is wrong with the end of the name if it was meant as a fragment; None if it was not."""
        name, mark, rest = self.path.rpartition("#")
        if not mark or not os.path.isfile(name):
            return None
        return (
            f"#{clean_text(rest)} is not a part of {name}: write seconds, or hours, minutes and seconds, "
            "as in #t=2,5 or #t=0:02,0:05, or a video stream, as in #v=1"
        )

    def __str__(self) -> str:
        """Return the path of the window, with its fragment."""
        return f"{self.path}{self.fragment}"


VideoPath = str | os.PathLike[str] | Window


def _parse_fragment(fragment: str) -> tuple[float, float, int | None] | None:
    """Return start, end and stream of a fragment, with its `#`; None if it is not valid or says nothing."""
    start, end, stream = 0.0, math.inf, None
    for part in fragment[1:].split("&"):
        name, _, value = part.partition("=")
        if name == "v":
            if not _STREAM.fullmatch(value):
                return None
            stream = int(value)
            continue
        first, comma, second = value.removeprefix("npt:").partition(",")
        begin, stop = _parse_time(first), _parse_time(second)
        if (begin is None and (first or not comma)) or (stop is None and comma):
            return None
        start, end = begin or 0.0, math.inf if stop is None else stop
    return start, end, stream


def _parse_time(text: str) -> float | None:
    """Return `2.5`, `1:02.5` or `0:01:02.5` in seconds; None for any other text."""
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    hours, minutes, seconds = found.groups()
    if (minutes and float(seconds) >= 60) or (hours and float(minutes) >= 60):
        return None
    return float(hours or 0) * 3600 + float(minutes or 0) * 60 + float(seconds)


def _local_path(path: str) -> str:
    """Return the path of a `file:` URL, with its fragment; any other path unchanged."""
    found = _FILE_URL.match(path)
    if found is None:
        return path
    name, mark, fragment = path[found.end() :].partition("#")
    return f"/{unquote(name, errors='surrogateescape')}{mark}{fragment}"


def absolute_path(path: str | os.PathLike[str]) -> str:
    """Return an absolute path of a video, or of a part of one. A `file:` URL becomes a path.

    Raises:
        VideoError: The path is relative and the working folder no longer exists.
    """
    path = _local_path(os.fspath(path))
    if _URL.match(path):
        return path  # not a path; opening it reports this
    try:
        here = os.getcwd()
    except FileNotFoundError:
        if not os.path.isabs(path):
            raise VideoError(
                f"{clean_text(path)} cannot be found: the working folder was deleted; give an absolute path"
            ) from None
        return path
    plain = os.path.abspath(path)
    joined = path if os.path.isabs(path) else os.path.join(here, path)
    # `abspath` removes `link/..` as text, but if `link` is a symbolic link this changes the meaning.
    return plain if os.path.realpath(plain) == os.path.realpath(joined) else joined


def exact_seconds(seconds: float) -> str:
    """Return seconds as text to the microsecond, never in scientific notation: `2`, `12345.25`, `inf`."""
    return f"{seconds:.6f}".rstrip("0").rstrip(".")
