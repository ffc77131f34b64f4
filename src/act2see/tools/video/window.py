"""Paths of videos and of their parts: `clip.mp4`, or `clip.mp4#t=2,8` for the seconds 2 to 8 of it.

The suffix is a W3C media fragment. A part is treated as a video of its own that starts at 0. States, traces
and corpora contain paths as text, and functions of the tools accept such text or a `Window`. Each of them
calls `Window.resolve`, which parses text and returns a `Window` unchanged.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from typing import Self

from act2see.errors import VideoError
from act2see.tools.runtime.text import clean_text

_FRAGMENT = re.compile(r"#t=(\d+(?:\.\d+)?)?(?:,(\d+(?:\.\d+)?))?$")


@dataclass(frozen=True, slots=True)
class Window:
    """A video file, or a part of one."""

    path: str
    """Path of the file."""
    start: float = 0.0
    """Start of the part, in seconds of the file."""
    end: float = math.inf
    """End of the part, in seconds of the file; infinite for the end of the file."""

    @classmethod
    def parse(cls, path: str | os.PathLike[str]) -> Self:
        """Parse a path without access to the disk."""
        path = os.fspath(path)
        found = _FRAGMENT.search(path)
        if not found or not any(found.groups()):
            return cls(path)
        start, end = found.groups()
        return cls(path[: found.start()], float(start or 0), float(end) if end else math.inf)

    @classmethod
    def resolve(cls, video: VideoPath) -> Window:
        """Parse a path, unless it is a window. If a file has this exact name, the path means that file."""
        if isinstance(video, Window):
            return video
        window = cls.parse(video)
        return window if window.whole or not os.path.exists(video) else cls(os.fspath(video))

    @property
    def whole(self) -> bool:
        """Whether it is the whole file."""
        return self.start == 0 and self.end == math.inf

    def part(self, start: float, end: float) -> Window:
        """Return a part of this window.

        Args:
            start: Start of the part, in seconds of this window.
            end: End of the part, in seconds of this window.
        """
        return Window(self.path, self.start + start, self.start + end)

    @property
    def fragment(self) -> str:
        """The suffix of its path: `#t=2,8`, or `#t=2` without an end; empty for a whole file."""
        if self.whole:
            return ""
        end = "" if self.end == math.inf else f",{exact_seconds(self.end)}"
        return f"#t={exact_seconds(self.start)}{end}"

    def __str__(self) -> str:
        """Return the path of the window, with its fragment."""
        return f"{self.path}{self.fragment}"


VideoPath = str | os.PathLike[str] | Window


def absolute_path(path: str | os.PathLike[str]) -> str:
    """Return an absolute path of a video, or of a part of one.

    Raises:
        VideoError: The path is relative and the working folder no longer exists.
    """
    path = os.fspath(path)
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
